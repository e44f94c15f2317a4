"""From exported files to what a trainer asks: rows, prompts and truths, checked before a model is loaded."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rm_gallery.core.data.samples import decoded
from rm_gallery.core.errors import DataError
from rm_gallery.core.tasks import Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Example:
    """One question to the judge with its truth."""

    row: dict[str, Any]
    messages: list[dict[str, str]]
    truth: Any


def build_examples(
    task: Task[Any], rows: Sequence[dict[str, Any]], *, limit: int | None = None, seed: int = 0
) -> list[Example]:
    """Prompts and truths of the rows, at most `limit` of them drawn with `seed`, in the file's order.

    Raises:
        DataError: the truth of rows is missing or not legal; says of how many, and names the first.
    """
    examples, bad = [], []
    chosen = drawn(list(enumerate(rows, 1)), limit, seed)
    for number, row in chosen:
        try:
            examples.append(Example(row, task.messages(row), task.truth(row)))
        except DataError as error:
            bad.append(f"row {number}, {error}")
    if bad:
        raise DataError(f"{len(bad)} of {len(chosen)} rows cannot be trained on, the first is {bad[0]}")
    return examples


def drawn(rows: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """At most `limit` of the rows, drawn with `seed`, in their order."""
    if limit is None or limit >= len(rows):
        return list(rows)
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), limit))]


def drop_overlong(
    examples: Sequence[Example],
    count_tokens: Callable[[list[dict[str, str]]], int],
    limit: int,
    why: str = "",
) -> tuple[list[Example], int]:
    """Leave out prompts of more than `limit` tokens; returns (kept, number left out). `why` names another limit than
    data.max_prompt_length.

    Raises:
        DataError: none is left; says how long the shortest is.
    """
    lengths = [count_tokens(example.messages) for example in examples]
    kept = [example for example, length in zip(examples, lengths, strict=True) if length <= limit]
    if not kept:
        raise DataError(
            f"all {len(examples)} prompts are longer than {why or f'data.max_prompt_length={limit}'} tokens "
            f"(the shortest has {min(lengths)})" + ("" if why else ": raise it")
        )
    return kept, len(examples) - len(kept)


def unwrapped_answer(output: Any) -> Any:
    """One response as `{"content", "label"}`."""
    item = decoded(output)
    if isinstance(item, Mapping) and "answer" in item:
        item = decoded(item["answer"])
    if isinstance(item, Mapping) and "label" in item:
        item = {**item, "label": decoded(item["label"]) or {}}
    return item


def row_labels(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's labels by name, without nulls: the preference of a pair, else the labels of the response."""
    metadata = row.get("metadata") or {}
    preference = {}
    for key in ("preferred", "preference_strength"):
        value = row.get(key)
        value = metadata.get(key) if value is None else value
        if value is not None:
            preference[key] = value
    if "preferred" in preference:
        return preference
    output = row.get("output")
    output = output[0] if isinstance(output, list) and output else output
    label = output.get("label") if isinstance(output, Mapping) else None
    return {key: value for key, value in (label or {}).items() if value is not None}
