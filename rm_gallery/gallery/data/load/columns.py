"""Converters of one's own tables: `configs.columns` says which of our fields stands in which column.

source: columns_pointwise
columns: {prompt: question, response: answer, helpfulness: {column: stars, scale: [1, 5], to: [0, 4]}}

source: columns_pairwise
columns: {prompt: question, response_1: left, response_2: right, preferred: winner}
columns: {prompt: question, chosen: better, rejected: worse}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rm_gallery.core.data.converters import (
    BadRow,
    Converter,
    category,
    register_converter,
    text,
    whole_number,
)
from rm_gallery.core.data.samples import Message, Pair, Preferred, Row, Sample, conversation
from rm_gallery.core.errors import ConfigError, DataError, nearest

_WHY = "reasoning"
_OURS = ("unique_id", "input", "output", "data_source", "task_category", "metadata")


@register_converter("columns_pointwise")
class ColumnsPointwiseConverter(Converter):
    """`prompt`, `response`, `reasoning`, and every other name is a label from 0 to 4, as `helpfulness`.

    A `prompt` is a text or a list of chat messages. A label of another scale is written `{column: stars, scale: [1, 5]}`.
    `reasoning` may be left out: a text that says why, for supervised training of a judge that reasons.
    """

    kind = "pointwise"
    takes_columns = True

    def __init__(self, columns: Mapping[str, Any] | None = None, name: str = "") -> None:
        named, self.scales = _with_scales(columns)
        self.columns = _checked(named, ("prompt", "response"))
        self.label_names = tuple(key for key in self.columns if key not in ("prompt", "response", _WHY))
        self.metadata_names = (_WHY,) if _WHY in self.columns else ()
        self.name = name or "columns"
        taken = [label for label in self.label_names if label in _OURS]
        if taken:
            raise ConfigError(f"configs.columns.{taken[0]}: a label cannot be named so, the export uses it")
        if not self.label_names:
            raise ConfigError("configs.columns names no label: add one, as `helpfulness: stars`")

    def parse(self, row: Row) -> Sample:
        found = {
            label: self._label(row, label, optional=i > 0)  # the first has to be there
            for i, label in enumerate(self.label_names)
        }
        labels = {label: value for label, value in found.items() if value is not None}
        return Sample(
            input=_turns(row, self.columns["prompt"]),
            response=text(row, self.columns["response"]),
            labels=labels,
            data_source=self.name,
            task_category=category(row),
            metadata=_reasoning(row, self.columns),
        )

    def _label(self, row: Row, label: str, *, optional: bool = False) -> int | None:
        scale = self.scales.get(label, _Scale((0, 4), (0, 4)))
        hint = "" if label in self.scales else "; another scale is named by scale and to"
        value = whole_number(row, self.columns[label], *scale.written, optional=optional, hint=hint)
        return None if value is None else scale.kept_as(value)


@register_converter("columns_pairwise")
class ColumnsPairwiseConverter(Converter):
    """`prompt`, and `response_1, response_2` with `preferred` or `preference_strength`, or `chosen, rejected`.

    `preferred` holds A, B or tie, 1 or 2, `response_1` or `response_2`, or the name of the column it means.
    `preference_strength` is a whole number from -3 to 3, positive where the second response is better.
    """

    kind = "pairwise"
    takes_columns = True

    def __init__(self, columns: Mapping[str, Any] | None = None, name: str = "") -> None:
        self.name = name or "columns"
        if "chosen" in (columns or {}) or "rejected" in (columns or {}):
            self.columns = _checked(columns, ("prompt", "chosen", "rejected"), ())
        else:
            verdicts = ("preferred", "preference_strength")
            self.columns = _checked(columns, ("prompt", "response_1", "response_2"), verdicts)
            if not any(key in self.columns for key in verdicts):
                raise ConfigError("configs.columns: `preferred` or `preference_strength` is missing")

    def parse(self, row: Row) -> Pair:
        columns = self.columns
        first, second = (columns.get(key, "") for key in ("response_1", "response_2"))
        preferred: Preferred
        if "chosen" in columns:
            first, second, preferred, strength = columns["chosen"], columns["rejected"], "A", -1
        elif "preference_strength" in columns:
            strength = whole_number(row, columns["preference_strength"], -3, 3)
            preferred = "B" if strength > 0 else "A" if strength < 0 else "tie"
        else:
            preferred = self._preferred(row, columns["preferred"])
            strength = {"A": -1, "B": 1, "tie": 0}[preferred]
        return Pair(
            input=_turns(row, columns["prompt"]),
            response_a=text(row, first),
            response_b=text(row, second),
            preferred=preferred,
            strength=strength,
            data_source=self.name,
            task_category=category(row),
        )

    def _preferred(self, row: Row, column: str) -> Preferred:
        value = row.get(column)
        if isinstance(value, float):  # a column of 1 and 2 in which one is missing
            value = None if math.isnan(value) else int(value) if value.is_integer() else value
        if value is None:
            raise BadRow(f"{column} is missing")
        word = str(value).strip().lower()
        if word == "tie":
            return "tie"
        if word in ("a", "1", "response_1", self.columns["response_1"].lower()):
            return "A"
        if word in ("b", "2", "response_2", self.columns["response_2"].lower()):
            return "B"
        if not word:
            raise BadRow(f"{column} is missing")
        raise BadRow(
            f"{column} is none of A, B and tie, nor 1, 2, {self.columns['response_1']} or {self.columns['response_2']}",
            value,
        )


class _Scale(NamedTuple):
    """The lowest and the highest of a label, as it is written and as it is kept."""

    written: tuple[int, int]
    kept: tuple[int, int]

    def kept_as(self, value: int) -> int:
        (low, high), (lowest, highest) = self
        return lowest + (value - low) * (highest - lowest) // (high - low)


def _with_scales(columns: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, _Scale]]:
    """(columns by name, the scales of the labels that are not written from 0 to 4)."""
    named: dict[str, Any] = dict(columns or {})
    scales: dict[str, _Scale] = {}
    for label, given in named.items():
        if not isinstance(given, Mapping):
            continue
        written = _ends(given.get("scale"))
        kept = _ends(given["to"]) if "to" in given else written
        known = {"column", "scale"} <= set(given) <= {"column", "scale", "to"}
        if not known or not written or not kept or label in ("prompt", "response", _WHY):
            raise ConfigError(
                f"configs.columns.{label} is {dict(given)!r}, expected the name of a column, or of a label "
                "{column: stars, scale: [1, 5], to: [0, 4]} with the lowest and the highest, as they are written and "
                "as they are kept (without `to`: as they are)"
            )
        if (kept[1] - kept[0]) % (written[1] - written[0]):
            raise ConfigError(
                f"configs.columns.{label}: {list(written)} does not go into {list(kept)} step by step, and labels "
                "between two scores would have to be rounded: keep the scale, and train the task multi_dimension on it"
            )
        named[label], scales[label] = given["column"], _Scale(written, kept)
    return named, scales


def _ends(scale: Any) -> tuple[int, int] | None:
    if not isinstance(scale, list | tuple) or [type(end) for end in scale] != [int, int]:
        return None
    low, high = scale
    return (low, high) if low < high else None


def _reasoning(row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    value = row.get(columns[_WHY]) if _WHY in columns else None
    return {_WHY: str(value)} if isinstance(value, str) and value.strip() else {}


def _checked(
    columns: Mapping[str, Any] | None, needed: tuple[str, ...], optional: tuple[str, ...] | None = None
) -> dict[str, str]:
    """The mapping with all `needed` keys, and no others than `optional` unless that is None."""
    found = dict(columns or {})
    for key, column in found.items():
        if not isinstance(column, str):
            raise ConfigError(f"configs.columns.{key} is {column!r}, expected the name of a column")
        if optional is not None and key not in (*needed, *optional):
            known = [*needed, *optional]
            raise ConfigError(f"configs.columns.{key}: known are {', '.join(known)}.{nearest(key, known)}")
    missing = [key for key in needed if key not in found]
    if missing:
        raise ConfigError(
            f"configs.columns.{missing[0]} is missing: it names the column that holds it, "
            f"as `columns: {{{', '.join(f'{key}: my_{key}' for key in needed)}}}`"
        )
    return found


def _turns(row: Row, column: str) -> tuple[Message, ...]:
    value = row.get(column)
    if value is None or isinstance(value, str):
        return (Message("user", str(text(row, column))),)
    try:
        return conversation({"input": value})
    except DataError:
        raise BadRow(f"{column} is neither a text nor a list of chat messages", value) from None
