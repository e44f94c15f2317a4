"""Reading a benchmark's files: rows with their place, and items made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.data.hashing import prompt_hash
from rm_gallery.core.data.samples import Message, conversation
from rm_gallery.core.data.sources import find_files
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.base import Comparison, Item

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its file, and its line there (in `.json` and `.parquet` its number), from 1."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


def read_items(path: Path, parse: Callable[[Row, Place], Item]) -> list[Item]:
    """The items of a file or folder; `parse` makes one of a row, and says with `BadRow` what is wrong in it.

    Raises:
        DataError: a file is missing or damaged, or holds no item, or a row is not as the format has it (file, row).
    """
    items: list[Item] = []
    for row, place in read_rows(path):
        with located(place):
            items.append(parse(row, place))
    return checked_items(items, path)


def read_rows(path: Path) -> Iterator[tuple[dict[str, Any], Place]]:
    """Every row of a file or of a folder's files, with its place.

    Raises:
        DataError: a file is missing or damaged, or a line is no row.
    """
    for source in find_files(str(path))[0]:
        for number, row in source:
            place = Place(source.path, number)
            if isinstance(row, BadRow):
                raise DataError(f"{place}: {row}")
            yield row, place


@contextmanager
def located(place: Place) -> Iterator[None]:
    """Say of a `BadRow` raised inside where the row is."""
    try:
        yield
    except BadRow as error:
        raise DataError(f"{place}: {error}") from None


def checked_items(items: Sequence[Item], path: Path) -> list[Item]:
    """The items with distinct ids (the second `x` becomes `x#2`). Raises `DataError` where there are none."""
    if not items:
        raise DataError(f"{path} holds no item of this benchmark")
    seen: dict[str, int] = {}
    distinct = []
    for item in items:
        count = seen[item.unique_id] = seen.get(item.unique_id, 0) + 1
        distinct.append(item if count == 1 else replace(item, unique_id=f"{item.unique_id}#{count}"))
    return distinct


def make_item(
    unique_id: object,
    prompt: Any,
    responses: Sequence[str],
    comparisons: Iterable[Comparison],
    *,
    tags: Mapping[str, str] | None = None,
    cluster: str | None = None,
) -> Item:
    """An item from a row's fields; `prompt` is a text or a list of chat messages, and is the cluster by default.

    Raises:
        BadRow: the prompt is empty, or neither of these.
    """
    turns = messages(prompt)
    return Item(
        unique_id=str(unique_id),
        cluster=cluster or prompt_hash(turns).hex(),
        input=turns,
        responses=tuple(responses),
        comparisons=tuple(comparisons),
        tags=dict(tags or {}),
    )


def messages(prompt: Any) -> tuple[Message, ...]:
    """A prompt as chat messages. Raises `BadRow` where it is empty, or neither a text nor messages."""
    if isinstance(prompt, str) and prompt.strip():
        return (Message("user", prompt),)
    if isinstance(prompt, tuple) and prompt and all(isinstance(turn, Message) for turn in prompt):
        return prompt  # of a sample or a pair, which has checked them
    try:
        return conversation({"input": prompt if not isinstance(prompt, str) else None})
    except DataError:
        raise BadRow("the prompt is neither a text nor a list of chat messages", prompt) from None


def response(row: Row, name: str) -> str:
    """The text in a field; unlike a prompt it may be empty. Raises `BadRow` where it is no text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise BadRow(f"{name} is missing" if value is None else f"{name} is not a text", value)
    return value


def response_list(row: Row, name: str, length: int | None = None) -> list[str]:
    """The list of texts in a field. Raises `BadRow` where it is none, is empty, or is not of that length."""
    value = row.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise BadRow(f"{name} is not a list of texts", value)
    if length is not None and len(value) != length:
        raise BadRow(f"{name} holds {len(value)} texts, expected {length}")
    return list(value)


def one_of(row: Row, name: str, meaning: Mapping[Any, Any]) -> Any:
    """What the value in a field means. Raises `BadRow` where it is not one of those known."""
    value = row.get(name)
    try:
        return meaning[value]
    except (KeyError, TypeError):
        known = ", ".join(repr(key) for key in meaning)
        raise BadRow(f"{name} is none of {known}", value) from None
