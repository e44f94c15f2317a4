"""Rows of both shapes, and the keys that scoring returns."""

from __future__ import annotations

import json
from typing import Any

from rm_gallery.core.data.samples import Message, Pair, Sample

QUERY = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Why are apples healthy?"))
LABELS = {"helpfulness": 3, "correctness": 4, "relevance": 0}

KEYS = {
    "pointwise": {
        "score": float,
        "predicted_helpfulness": int,
        "true_helpfulness": int,
        "accuracy": int,
        "acc": int,
        "abs_error": float,
        "parsed": int,
        "data_source": str,
    },
    "pairwise": {
        "score": float,
        "predicted_preference": str,
        "true_preference": str,
        "preference_strength": int,
        "accuracy": int,
        "acc": int,
        "parsed": int,
        "task_type": str,
        "data_source": str,
    },
}


def sample(**changes: Any) -> Sample:
    base = {"response": "Fibre.", "labels": LABELS, "metadata": {"split": "train"}}
    return Sample(**{"input": QUERY, "unique_id": "r1", **base, **changes})


def pair(**changes: Any) -> Pair:
    base = {"response_a": "Fibre.", "response_b": "Dunno.", "preferred": "A", "strength": -2}
    return Pair(**{"input": QUERY, "unique_id": "p1", **base, **changes})


def older_shape(row: dict[str, Any]) -> dict[str, Any]:
    """The row as JSON strings with `output[…].answer`, without flat labels."""
    outputs = row["output"] if isinstance(row["output"], list) else [row["output"]]
    return {
        "unique_id": row["unique_id"],
        "input": json.dumps(row["input"]),
        "output": json.dumps([{"answer": {"role": "assistant", **output}} for output in outputs]),
        "metadata": json.dumps(row["metadata"]),
    }
