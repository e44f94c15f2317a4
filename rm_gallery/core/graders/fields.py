"""What graders are given: texts and conversations, checked where they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rm_gallery.core.data.samples import Message, conversation_text
from rm_gallery.core.errors import DataError

Turns = list[dict[str, str]]


def turns(query: Any, name: str = "query") -> Turns:
    """A conversation as chat messages; a text is its only turn.

    Raises:
        DataError: it is neither, or it ends with nothing.
    """
    found = query.tolist() if hasattr(query, "tolist") else query
    if isinstance(found, str):
        found = [{"role": "user", "content": found}]
    if not is_conversation(found):
        raise DataError(f"{name} is {_shown(query)}, expected a text or a list of chat messages")
    if not found[-1]["content"].strip():
        raise DataError(f"{name} is empty")
    return [{"role": turn["role"], "content": turn["content"]} for turn in found]


def text(value: Any, name: str) -> str:
    """A text. Raises `DataError` where it is none."""
    if not isinstance(value, str):
        raise DataError(f"{name} is {_shown(value)}, expected a text")
    return value


def texts(value: Any, name: str) -> list[str]:
    """A list of texts. Raises `DataError` where it is none."""
    found = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise DataError(f"{name} is {_shown(value)}, expected a list of texts")
    return [text(one, f"{name}[{i}]") for i, one in enumerate(found)]


def checked(values: Mapping[str, Any], required: Sequence[str]) -> None:
    """Raises `DataError` where what a prompt needs is not there: a query and a response as elsewhere, the rest at all."""
    for name in required:
        if name == "query":
            turns(values[name])
        elif name == "response":
            text(values[name], name)
        elif values[name] is None:
            raise DataError(f"{name} is None")


def is_conversation(value: Any) -> bool:
    """Whether it is a list of chat messages whose contents are texts."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(turn, Mapping) for turn in value)
        and all(isinstance(turn.get(key), str) for turn in value for key in ("role", "content"))
    )


def as_text(value: Any) -> Any:
    """A conversation as one text; anything else as it is."""
    found = value.tolist() if hasattr(value, "tolist") else value
    if not is_conversation(found):
        return found
    return conversation_text([Message(turn["role"], turn["content"]) for turn in found])


def response_row(query: Any, response: Any) -> dict[str, Any]:
    """One response to a conversation, as tasks take it."""
    return {"input": turns(query), "output": {"content": text(response, "response")}}


def pair_row(query: Any, first: str, second: str) -> dict[str, Any]:
    """Two responses to a conversation, as tasks take them."""
    return {"input": turns(query), "output": [{"content": first}, {"content": second}]}


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"
