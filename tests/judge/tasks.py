"""A task whose verdict almost any text holds, so that a random tiny model votes."""

from __future__ import annotations

from rm_gallery.core.errors import InvalidVerdict
from rm_gallery.core.tasks import PointwiseTask


class FirstCharacter(PointwiseTask):
    """The score is the remainder of the first character's number, by six; 5 is invalid."""

    def parse(self, text: str) -> int:
        rest = ord(text[0]) % 6 if text else 5
        if rest == 5:
            raise InvalidVerdict("its first character has no score")
        return rest
