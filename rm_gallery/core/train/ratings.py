"""From exported rows to rated responses: what regression learns from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import Message, Sample, number, response_count
from rm_gallery.core.errors import DataError, nearest
from rm_gallery.core.train.rows import drawn


@dataclass(frozen=True, slots=True)
class RatedResponse:
    """One response with its labels.

    Attributes:
        labels: one for each attribute, in the attributes' order; None where the row has none. At least one is there.
        row: as exported.
    """

    input: tuple[Message, ...]
    response: str
    labels: tuple[float | None, ...]
    row: dict[str, Any]

    @property
    def conversation(self) -> list[dict[str, str]]:
        return spoken(self.input, self.response)


def spoken(turns: Iterable[Message], response: str) -> list[dict[str, str]]:
    """A conversation that ends with the response, as a scalar model scores it."""
    return [*(turn.to_dict() for turn in turns), {"role": "assistant", "content": response}]


def read_ratings(
    path: Path, attributes: Sequence[str], *, limit: int | None = None, seed: int = 0
) -> tuple[list[RatedResponse], list[str]]:
    """(the responses of a file with at least one label of `attributes`, sentences on what was left out).

    Args:
        limit: at most so many of them, drawn with `seed`.

    Raises:
        DataError: the file holds pairs, or an attribute stands in no row of it; names the nearest.
    """
    rows = load_rows(path)
    if response_count(rows[0]) != 1:
        raise DataError(
            f"{path} holds pairs of responses, and regression learns the labels of single ones: "
            "use method bradley_terry, or a file of rated responses"
        )
    samples = [Sample.from_row(row) for row in rows]
    check_labels(samples, attributes, "regression.attributes", path)
    found = []
    for row, sample in zip(rows, samples, strict=True):
        labels = tuple(label(sample, name) for name in attributes)
        if any(value is not None for value in labels):
            found.append(RatedResponse(sample.input, sample.response, labels, row))
    unrated, notes = len(samples) - len(found), []
    if unrated:
        notes.append(f"{path}: {unrated} of {len(samples)} rows have none of the labels and are left out")
    return drawn(found, limit, seed), notes


def check_labels(samples: Sequence[Sample], names: Sequence[str], key: str, path: Path) -> None:
    """Refuse a label that no row has. Raises `DataError` with the nearest that some row has."""
    known = list(dict.fromkeys(name for sample in samples for name in sample.labels))
    for name in names:
        if name not in known:
            have = f"their labels are {', '.join(known)}" if known else "they have no label at all"
            raise DataError(f"{key}: no row of {path} has a label {name!r}; {have}.{nearest(name, known)}")


def label(sample: Sample, name: str) -> float | None:
    """The number that a response is labelled with; None where it has none. Raises `DataError` where it is no number."""
    return number(sample.labels.get(name), f"row {sample.unique_id!r}: the label {name}")
