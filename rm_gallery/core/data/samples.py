"""What flows through the toolkit: messages, a labelled response, a labelled pair, and the rows they become.

A row is what stands in an exported file (`to_row`), and `from_row` reads it back, also in the older shape
(JSON strings, `output[0].answer.label`). The columns are the same for both kinds:
`unique_id, input, output, data_source, task_category, metadata` and the labels, flat.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rm_gallery.core.errors import DataError

Row = Mapping[str, Any]
Role = Literal["system", "user", "assistant"]
Preferred = Literal["A", "B", "tie"]
_OTHER: dict[Preferred, Preferred] = {"A": "B", "B": "A", "tie": "tie"}
_PAIR_LABELS = ("preferred", "preference_strength")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str

    def to_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Sample:
    """One response to a conversation, with integer labels by name (`{"helpfulness": 3}`)."""

    input: tuple[Message, ...]
    response: str
    labels: Mapping[str, int]
    unique_id: str = ""
    data_source: str = "unknown"
    task_category: str = "general"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        return {
            "unique_id": self.unique_id,
            "input": [message.to_dict() for message in self.input],
            "output": {"content": self.response, "label": dict(self.labels)},
            "data_source": self.data_source,
            "task_category": self.task_category,
            "metadata": dict(self.metadata),
            **self.labels,
        }

    @classmethod
    def from_row(cls, row: Row) -> Sample:
        """Read a row of either shape. Raises `DataError` naming the row."""
        output = _outputs(row)[0]
        return cls(
            input=conversation(row),
            response=output["content"],
            labels=output["label"],
            unique_id=str(row.get("unique_id") or ""),
            data_source=str(row.get("data_source") or "unknown"),
            task_category=str(row.get("task_category") or "general"),
            metadata=metadata_of(row),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to a conversation and which one is preferred.

    `strength` is positive where B is preferred, negative where A is, 0 for a tie (HelpSteer2's convention,
    -3..3 there).
    """

    input: tuple[Message, ...]
    response_a: str
    response_b: str
    preferred: Preferred
    strength: float = 0
    unique_id: str = ""
    data_source: str = "unknown"
    task_category: str = "general"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def swap(self) -> Pair:
        """The same judgment with the two responses in the other order; `pair.swap().swap() == pair`."""
        return replace(
            self,
            response_a=self.response_b,
            response_b=self.response_a,
            preferred=_OTHER[self.preferred],
            strength=-self.strength,
        )

    def to_row(self) -> dict[str, Any]:
        labels = {"preferred": self.preferred, "preference_strength": self.strength}
        return {
            "unique_id": self.unique_id,
            "input": [message.to_dict() for message in self.input],
            "output": [
                {"content": self.response_a, "label": {"is_preferred": self.preferred == "A"}},
                {"content": self.response_b, "label": {"is_preferred": self.preferred == "B"}},
            ],
            "data_source": self.data_source,
            "task_category": self.task_category,
            "metadata": {**self.metadata, **labels},
            **labels,
        }

    @classmethod
    def from_row(cls, row: Row) -> Pair:
        """Read a row of either shape. Raises `DataError` naming the row."""
        outputs = _outputs(row)
        if len(outputs) != 2:
            raise DataError(f"{row_name(row)}: a pair needs two responses in `output`, found {len(outputs)}")
        metadata = metadata_of(row)
        # a null column does not hide what `metadata` says
        labels = metadata | {key: row[key] for key in _PAIR_LABELS if row.get(key) is not None}
        preferred = labels.get("preferred")
        if not isinstance(preferred, str) or preferred not in _OTHER:
            raise DataError(f"{row_name(row)}: `preferred` is {preferred!r}, expected 'A', 'B' or 'tie'")
        strength = number(labels.get("preference_strength"), f"{row_name(row)}: `preference_strength`") or 0
        return cls(
            input=conversation(row),
            response_a=outputs[0]["content"],
            response_b=outputs[1]["content"],
            preferred=preferred,
            strength=plain(strength),
            unique_id=str(row.get("unique_id") or ""),
            data_source=str(row.get("data_source") or "unknown"),
            task_category=str(row.get("task_category") or "general"),
            # `to_row` puts the labels there too, where older readers look for them
            metadata={k: v for k, v in metadata.items() if k not in _PAIR_LABELS},
        )

    @classmethod
    def unlabelled(cls, row: Row) -> Pair:
        """What was compared, of a row whose label is missing, bad or nobody's business here: as a tie."""
        return cls.from_row({**row, "preferred": "tie", "preference_strength": 0})


def conversation(row: Row) -> tuple[Message, ...]:
    """The messages of a row's `input`. Raises `DataError` where there is none with content."""
    turns = decoded(row.get("input"))
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    if not isinstance(turns, list | tuple):
        turns = []
    for turn in turns:
        given = [turn.get(key) for key in ("role", "content")] if isinstance(turn, Mapping) else []
        if not given or not all(isinstance(text, str) for text in given):
            raise DataError(
                f"{row_name(row)}: every message of `input` needs a `role` and a `content`, both texts"
            )
    messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
    if not messages or not messages[-1].content.strip():
        raise DataError(f"{row_name(row)}: `input` holds no query; it must be a list of chat messages")
    return messages


def conversation_text(messages: Iterable[Message]) -> str:
    """The whole conversation as one text: the bare content of a single turn, labelled turns otherwise."""
    turns = tuple(messages)
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in turns)


def row_name(row: Row) -> str:
    """The id by which messages to the user name this row."""
    return str(row.get("unique_id") or "row without unique_id")


def decoded(value: Any) -> Any:
    """Undo the older shape's JSON strings; arrays that pandas read from Parquet become lists."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return value
    return value.tolist() if hasattr(value, "tolist") else value


def number(value: Any, what: str) -> float | None:
    """A label as a number; None where there is none, which pandas writes as NaN. Raises `DataError` that begins with `what`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{what} is {value!r}, expected a number")
    if math.isinf(value):
        raise DataError(f"{what} is {value!r}, expected a finite number")
    return None if math.isnan(value) else float(value)


def plain(label: float) -> float:
    """3 of 3.0, as labels are written."""
    return label if label % 1 else int(label)


def metadata_of(row: Row) -> dict[str, Any]:
    """`metadata` without its nulls: Parquet gives every row every key."""
    metadata = decoded(row.get("metadata"))
    if not isinstance(metadata, Mapping):
        return {}
    return {key: value for key, value in metadata.items() if value is not None}


def response_count(row: Row) -> int:
    """How many responses a row of either shape holds: 1, or 2 for a pair."""
    outputs = decoded(row.get("output"))
    return len(outputs) if isinstance(outputs, list) else 1


def _outputs(row: Row) -> list[dict[str, Any]]:
    """`output` of either shape as a list of `{"content", "label"}`."""
    outputs = decoded(row.get("output"))
    if isinstance(outputs, Mapping):
        outputs = [outputs]
    found: list[dict[str, Any]] = []
    if outputs is not None and not isinstance(outputs, list | tuple):
        raise DataError(
            f"{row_name(row)}: `output` is {type(outputs).__name__}, expected a response or a list of two"
        )
    for output in outputs or ():
        answer = decoded(output)
        answer = decoded(answer.get("answer", answer)) if isinstance(answer, Mapping) else answer
        if not isinstance(answer, Mapping) or not isinstance(answer.get("content"), str):
            raise DataError(f"{row_name(row)}: `output` needs a `content` text for each response")
        label = decoded(answer.get("label")) or {}
        if not isinstance(label, Mapping):
            raise DataError(
                f"{row_name(row)}: `label` of a response is {label!r}, expected names with their values"
            )
        found.append(
            {"content": answer["content"], "label": {k: v for k, v in label.items() if v is not None}}
        )
    if not found:
        raise DataError(f"{row_name(row)}: `output` holds no response")
    return found
