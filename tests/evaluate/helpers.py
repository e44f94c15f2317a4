"""Rows and predictions for the tests of evaluation."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from rm_gallery.core.data.samples import Message, Pair, Sample
from rm_gallery.core.evaluate import Predictions, score_outputs
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask


def sample_row(i: int, label: int, prompt: str = "", response: str = "an answer") -> dict:
    sample = Sample(
        (Message("user", prompt or f"question {i}"),), response, {"helpfulness": label}, f"row-{i}"
    )
    return sample.to_row()


def pair_row(i: int, preferred: str, prompt: str = "", a: str = "first", b: str = "second longer") -> dict:
    strength = {"A": -1, "B": 1, "tie": 0}[preferred]
    pair = Pair((Message("user", prompt or f"question {i}"),), a, b, preferred, strength, f"row-{i}")
    return pair.to_row()


def scores(truth, predicted, prompts=None) -> Predictions:
    """Pointwise predictions; -1 stands for an output that cannot be parsed."""
    rows = [
        sample_row(i, int(t), f"question {prompts[i]}" if prompts is not None else "")
        for i, t in enumerate(truth)
    ]
    texts = ["no verdict" if p < 0 else f"<score>{p}</score>" for p in predicted]
    return score_outputs(PointwiseTask(), rows, texts)


def distributions(truth, probabilities, prompts=None, mass=0.5) -> Predictions:
    """Pointwise predictions of a judge in mode `expected`; a row whose distribution is None was too long.

    `mass` is that of every row, or one for each.
    """
    masses = np.broadcast_to(mass, len(truth)).tolist()
    rows = [
        sample_row(i, int(t), f"question {prompts[i]}" if prompts is not None else "")
        for i, t in enumerate(truth)
    ]
    return score_outputs(
        PointwiseTask(),
        rows,
        [expected(PointwiseTask(), p, m) for p, m in zip(probabilities, masses, strict=True)],
    )


def expected(task, probabilities, mass=0.5) -> Answer:
    """An answer of mode `expected`."""
    if probabilities is None:
        return Answer(problem="overlong: 9,000 tokens")
    verdict = task.verdicts()[int(np.argmax(probabilities))]
    return Answer(verdict=verdict, probabilities=tuple(map(float, probabilities)), mass=mass)


def preferences(truth, predicted) -> Predictions:
    """Pairs judged in both orders: rows 2i and 2i+1 hold the same two responses, swapped. None is invalid."""
    rows = []
    for i, label in enumerate(truth):
        a, b = f"one {i // 2}", f"two {i // 2}"
        rows.append(pair_row(i, label, f"question {i // 2}", *((a, b) if i % 2 == 0 else (b, a))))
    texts = ["no verdict" if p is None else f"<preference>{p}</preference>" for p in predicted]
    return score_outputs(PairwiseTask(), rows, texts)


def helpsteer_rows(path: Path) -> list[dict]:
    """Rows of a HelpSteer2 file as published, converted by hand so that these tests need no converter."""
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for i, line in enumerate(lines):
            source = json.loads(line)
            labels = {k: v for k, v in source.items() if k not in ("prompt", "response")}
            sample = Sample((Message("user", source["prompt"]),), source["response"], labels, f"hs2-{i:05d}")
            rows.append(sample.to_row())
    return rows


def helpsteer_pairs(rows: list[dict]) -> list[dict]:
    """The two responses of each prompt, which stand next to each other, as a pair."""
    pairs = []
    for i in range(0, len(rows), 2):
        one, two = rows[i], rows[i + 1]
        assert one["input"] == two["input"]
        strength = two["helpfulness"] - one["helpfulness"]
        preferred = "tie" if strength == 0 else "B" if strength > 0 else "A"
        messages = tuple(Message(**turn) for turn in one["input"])
        pair = Pair(
            messages, one["output"]["content"], two["output"]["content"], preferred, strength, f"pair-{i}"
        )
        pairs.append(pair.to_row())
    return pairs
