"""Converters: from a row as its publisher wrote it to a `Sample` or `Pair`, and the registry of them.

Adding one::

    @register_converter("my_ratings")
    class MyRatings(Converter):
        label_names = ("helpfulness",)

        def parse(self, row):
            return Sample(
                input=(Message("user", text(row, "question")),),
                response=text(row, "answer"),
                labels={"helpfulness": whole_number(row, "stars", 0, 4)},
                data_source="my_ratings",
            )

and `source: my_ratings` in the YAML, or `source: my.module:MyRatings` without registering it.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeVar, overload

from rm_gallery.core.data.hashing import Fingerprint, fingerprint
from rm_gallery.core.data.samples import Pair, Row, Sample
from rm_gallery.core.errors import ConfigError, DataError, nearest

Judgment = Sample | Pair
"""What one row of a source says: a rated response, or a compared pair in the order it was shown."""


class BadRow(DataError):
    """A row that cannot be used. `reason` groups rows of the same defect; `found` is this row's value."""

    def __init__(self, reason: str, found: Any = ...) -> None:
        shown = "" if found is ... else f" (found {_short(found)})"
        super().__init__(f"{reason}{shown}")
        self.reason = reason


class Cell(str):
    """A text out of a CSV file, where numbers are written as text too."""

    __slots__ = ()


class Converter(ABC):
    """Turns rows of one source into judgments. Subclasses write `parse`.

    Args:
        columns: the `configs.columns` of the YAML, for converters that take any (`takes_columns`).
        name: the dataset's name, for converters that have no `data_source` of their own.
    """

    kind: ClassVar[Literal["pointwise", "pairwise"]] = "pointwise"
    takes_columns: ClassVar[bool] = False
    label_names: tuple[str, ...] = ()
    """The flat label columns of pointwise rows; one that a row lacks is null."""
    metadata_names: tuple[str, ...] = ()
    """Keys of `metadata` that `parse` fills, with texts; all others are refused by the export."""

    def __init__(self, columns: Mapping[str, Any] | None = None, name: str = "") -> None:
        if columns and not self.takes_columns:
            raise ConfigError(
                f"configs.columns: {type(self).__name__} knows its columns; leave them out, or use "
                f"source: columns_pointwise or columns_pairwise"
            )

    def check_columns(self, row: Row, source: str) -> None:
        """Compare the columns of `configs.columns` with a source's first row, before any row is read.

        A table has the same columns in every row, so one that is missing there is a mistake in the YAML; of
        JSON rows each has its own, so only a row that has none of them says so.

        Raises:
            DataError: names the missing column, and those there are.
        """
        named = [str(column) for column in getattr(self, "columns", {}).values()]
        missing = [column for column in named if column not in row]
        is_table = any(isinstance(value, Cell) for value in row.values())
        if missing and (is_table or len(missing) == len(named)):
            there = ", ".join(str(column) for column in row) or "none"
            raise DataError(
                f"{source} has no column {missing[0]!r} (configs.columns names it); it has: {there}.{_delimiter(there) if is_table else ''}"
                f"{nearest(missing[0], [str(column) for column in row])}"
            )

    @abstractmethod
    def parse(self, row: Row) -> Judgment:
        """Read one row. Raises `BadRow` where a field is missing or not legal."""

    def convert(self, row: Row) -> list[Sample] | list[Pair]:
        """The samples of one row, with ids: one for a rating, two for a pair (as shown, and swapped).

        Raises:
            BadRow: a field is missing or not legal.
        """
        judgment = self.parse(row)
        return expand(judgment, marked(judgment))


def marked(judgment: Judgment) -> Fingerprint:
    """The judgment's fingerprint. Raises `BadRow` where a text of it cannot be stored."""
    try:
        return fingerprint(judgment)
    except UnicodeEncodeError:
        raise BadRow("a text is not valid Unicode") from None


@overload
def expand(judgment: Sample, mark: Fingerprint, split: str | None = None) -> list[Sample]: ...
@overload
def expand(judgment: Pair, mark: Fingerprint, split: str | None = None) -> list[Pair]: ...


def expand(judgment: Judgment, mark: Fingerprint, split: str | None = None) -> list[Sample] | list[Pair]:
    """The samples a judgment is exported as, with ids made from their content.

    A pair becomes two, in the order shown and swapped, which share `metadata.group` and say which they are
    in `metadata.order`. `split` is the source's own, kept in `metadata.split`.
    """
    # built field by field: dataclasses.replace costs twice as much, and this runs for every row
    metadata = judgment.metadata if split is None else {**judgment.metadata, "split": split}
    group = mark.unique_id
    if isinstance(judgment, Sample):
        return [
            Sample(
                judgment.input,
                judgment.response,
                judgment.labels,
                group,
                judgment.data_source,
                judgment.task_category,
                metadata,
            )
        ]
    return [
        Pair(
            pair.input,
            pair.response_a,
            pair.response_b,
            pair.preferred,
            pair.strength,
            f"{group}-{order}",
            pair.data_source,
            pair.task_category,
            {**metadata, "group": group, "order": order},
        )
        for order, pair in (("forward", judgment), ("swapped", judgment.swap()))
    ]


# -- the fields of a row


def text(row: Row, name: str) -> str:
    """The text in a row's field. Raises `BadRow` where it is missing, not a text, or blank."""
    value = row.get(name)
    if type(value) is str and not value[:1].isspace() and value:
        return value
    if value is None:
        raise BadRow(f"{name} is missing")
    if not isinstance(value, str):
        raise BadRow(f"{name} is not a text", value)
    if not value.strip():
        raise BadRow(f"{name} is empty")
    return str(value)


@overload
def whole_number(row: Row, name: str, low: int, high: int, *, hint: str = ...) -> int: ...
@overload
def whole_number(
    row: Row, name: str, low: int, high: int, *, optional: bool, hint: str = ...
) -> int | None: ...


def whole_number(
    row: Row, name: str, low: int, high: int, *, optional: bool = False, hint: str = ""
) -> int | None:
    """The whole number in a row's field; None where it is missing and may be.

    `3.0` is one (pandas writes integers so beside nulls), and so is `3` as text, but only out of a CSV file.
    Raises `BadRow` for anything else, with the `hint` where the number is not legal.
    """
    value = row.get(name)
    if type(value) is int and low <= value <= high:
        return value
    number = value
    if isinstance(value, Cell):
        try:
            number = float(value) if value.strip() else None
        except ValueError:
            number = value
    if number is None or (isinstance(number, float) and math.isnan(number)):
        if optional:
            return None
        raise BadRow(f"{name} is missing")
    legal = isinstance(number, int | float) and not isinstance(number, bool) and float(number).is_integer()
    if not legal or not low <= number <= high:
        raise BadRow(f"{name} is not a whole number from {low} to {high}{hint}", value)
    return int(number)


def category(row: Row) -> str:
    """The row's `task_category`, or "general"."""
    value = row.get("task_category")
    return value if isinstance(value, str) and value else "general"


def _short(value: Any) -> str:
    shown = repr(value if not isinstance(value, str) else str(value))
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


# -- the registry

_REGISTRY: dict[str, type[Converter]] = {}
C = TypeVar("C", bound=type[Converter])


def register_converter(name: str) -> Callable[[C], C]:
    """Class decorator: make a converter available as `source: name`. Raises `ConfigError` if taken."""

    def register(cls: C) -> C:
        taken = _REGISTRY.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(f"the converter name {name!r} is taken by {taken.__module__}.{taken.__name__}")
        _REGISTRY[name] = cls
        return cls

    return register


def get_converter(source: str, columns: Mapping[str, Any] | None = None, name: str = "") -> Converter:
    """Build the converter that a YAML's `source` names, registered or as `module:Class` / `file.py:Class`.

    Raises:
        ConfigError: no such converter, or columns it cannot use.
    """
    from rm_gallery.core.rewards import load_object

    if ":" in source:
        found = load_object(source)
        if not (isinstance(found, type) and issubclass(found, Converter)):
            raise ConfigError(f"source {source}: expected a subclass of Converter, found {found!r}")
        return found(columns, name)
    known = converter_names()
    if source not in known:
        raise ConfigError(
            f"source is {source!r}; the converters are {', '.join(known)}, and one's own is written "
            f"module:Class or file.py:Class.{nearest(source, known)}"
        )
    return _REGISTRY[source](columns, name)


def converter_names() -> list[str]:
    """The names that `source` may take."""
    # the core knows no dataset: those that ship with the package register themselves when imported
    importlib.import_module("rm_gallery.gallery.data.load")
    return sorted(_REGISTRY)


def _delimiter(header: str) -> str:
    """A hint where a table's header is one cell with another delimiter in it."""
    found = next((sign for sign in (";", "\t", "|") if sign in header and "," not in header), "")
    return f" Its cells are parted by {found!r}, and a CSV file here by commas: save it so." if found else ""
