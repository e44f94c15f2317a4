"""A benchmark's answers, read for the report: what was asked, what was said, and what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, get_args

from rm_gallery.core.data.samples import Preferred
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.result import Kind

_PAIRS = ("order", "truth", "predicted", "response_b")
_SCORES = ("value", "better_than")
_BOTH = ("unique_id", "item", "cluster", "problem", "probabilities", "mass", "text", "query", "response")


@dataclass(frozen=True)
class Scored:
    """The answers of a model that scores single responses of a benchmark. Every column is a tuple of length N.

    Attributes:
        unique_id: the response's name.
        item: the benchmark's item that it belongs to.
        value: the number by which it is ranked, or None where there is none.
        problem: why not; else "".
        mass: the probability of all legal verdicts together where it is known; else None.
        text: the raw output; of a scalar model "".
        query: the conversation, as one text.
        response: what was scored.
        better_than: the names of the item's responses that this one is labelled better than.
    """

    unique_id: tuple[str, ...]
    item: tuple[str, ...]
    value: tuple[float | None, ...]
    problem: tuple[str, ...]
    mass: tuple[float | None, ...]
    text: tuple[str, ...]
    query: tuple[str, ...]
    response: tuple[str, ...]
    better_than: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.unique_id)

    def comparisons(self) -> list[tuple[int, int]]:
        """(the better, the worse) of every two responses that are compared, by position."""
        position = {name: i for i, name in enumerate(self.unique_id)}
        return [(i, position[worse]) for i, names in enumerate(self.better_than) for worse in names]

    def values_by_label(self) -> tuple[list[float], list[float]]:
        """The numbers of the right and of the wrong responses; one that is both, as a middle rating, is in neither."""
        wrong = {name for names in self.better_than for name in names}
        chosen: list[float] = []
        rejected: list[float] = []
        for name, value, better in zip(self.unique_id, self.value, self.better_than, strict=True):
            if value is not None and bool(better) != (name in wrong):
                (chosen if better else rejected).append(value)
        return chosen, rejected


def read_answers(path: Path, kind: Kind) -> Predictions | Scored:
    """The predictions.parquet of a benchmark.

    Raises:
        DataError: it is something else; names what is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    needed = [*_BOTH, *(_PAIRS if kind == "pairwise" else _SCORES)]
    if missing := [name for name in needed if name not in table.column_names]:
        raise DataError(
            f"{path} is not what rmg eval writes about a benchmark (missing: {', '.join(missing)}); evaluate again"
        )
    found: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in needed}
    return _pairs(found) if kind == "pairwise" else _scores(found)


def _pairs(found: dict[str, list[Any]]) -> Predictions:
    size = len(found["unique_id"])
    pairs = [
        name.removesuffix(f"-{order}") for name, order in zip(found["unique_id"], found["order"], strict=True)
    ]
    names = ("unique_id", "cluster", "order", *_PAIRS[1:], *_BOTH[3:])
    columns: dict[str, Sequence[Any]] = {name: found[name] for name in names}
    columns["probabilities"] = [None if p is None else tuple(p) for p in found["probabilities"]]
    words = {
        "words": [len(text.split()) for text in found["response"]],
        "words_b": [len(text.split()) for text in found["response_b"]],
    }
    # a benchmark has no reward: its figures are in the result, not in these rows
    columns = {**columns, **words, "group": pairs, "reward": [nan] * size}
    return Predictions(
        "pairwise", get_args(Preferred), **{name: tuple(values) for name, values in columns.items()}
    )


def _scores(found: dict[str, list[Any]]) -> Scored:
    better = [tuple(names or ()) for names in found["better_than"]]
    names = ("unique_id", "item", "value", "problem", "mass", "text", "query", "response")
    return Scored(better_than=tuple(better), **{name: tuple(found[name]) for name in names})
