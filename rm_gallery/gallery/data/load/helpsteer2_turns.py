"""HelpSteer2's way of writing a conversation into one `prompt`."""

from __future__ import annotations

import re

from rm_gallery.core.data.converters import BadRow, text
from rm_gallery.core.data.samples import Message, Row

_TURN = re.compile(r"(?:^|\n)<extra_id_1>(User|Assistant)\n")


def chat_turns(row: Row) -> tuple[Message, ...]:
    r"""The messages of a row's `prompt`, where `\n<extra_id_1>Assistant\n` and `…User\n` begin turns.

    Raises:
        BadRow: no prompt, a turn without text, or a conversation that does not end with the user.
    """
    prompt = text(row, "prompt")
    if "<extra_id_1>" not in prompt:
        return (Message("user", prompt),)
    first, *rest = _TURN.split(prompt)
    turns = [Message("user", first)] if first.strip() else []
    turns += [Message(role.lower(), said) for role, said in zip(rest[::2], rest[1::2], strict=True)]
    if not turns or not all(turn.content.strip() for turn in turns):
        raise BadRow("prompt has an empty turn")
    if turns[-1].role != "user":
        raise BadRow("prompt ends with a turn of the assistant")
    return tuple(turns)
