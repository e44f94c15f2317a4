"""`BaseGrader`: what every grader is, whatever gives the grade."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from rm_gallery.core.errors import DataError, InvalidVerdict, UnfinishedReasoning, nearest
from rm_gallery.core.graders.result import GraderError, GraderRank, GraderResult, GraderScore
from rm_gallery.core.models import background
from rm_gallery.core.models.chat import ChatError

GraderMode = Literal["pointwise", "listwise"]

__all__ = ["BaseGrader", "GraderError", "GraderMode", "GraderRank", "GraderResult", "GraderScore"]


class MissingField(DataError, TypeError):
    """A field that the grader needs is not there: of a call a mistake, of a dataset's row the row's."""


class BaseGrader(ABC):
    """Grades one item, given as fields: `query`, `response`, or `responses` of a listwise grader, and more.

    Attributes:
        name: stands in its results.
        mode: `pointwise` scores one response, `listwise` ranks several, given as `responses`.
        required: the fields it cannot do without.
        optional: those it can; None: it takes whatever else it is given.
        both_orders: it looks at a pair in both orders itself, so that nobody else needs to.

    What a grade depends on stands in public attributes, by which a runner's journal tells one grader from another; what
    changes while it works, in private ones.
    """

    name: str
    mode: GraderMode = "pointwise"
    required: tuple[str, ...] = ("query", "response")
    optional: tuple[str, ...] | None = ()
    both_orders: bool = False

    async def aevaluate(self, **fields: Any) -> GraderResult:
        """Grade one item. May be awaited many times at once, on any event loop.

        Never raises for what may happen to a good item: a request that failed, an answer without a legal verdict, a
        prompt that is too long or a text that is empty is a `GraderError` with its cause.

        Raises:
            TypeError: a field is missing (`MissingField`), or is not one of the grader's.
            ConfigError: the grader cannot be used as it is set up.
        """
        self.check_fields(fields)
        try:
            return await self._grade(fields)
        except (ChatError, InvalidVerdict, DataError) as error:
            return self.error(error)

    def evaluate(self, **fields: Any) -> GraderResult:
        """`aevaluate` for code that does not await; in a notebook too, which it holds up."""
        return background.wait(self.aevaluate(**fields))

    def select(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a row that the grader takes; what is missing is left for `aevaluate` to name."""
        if self.optional is None:
            return dict(row)
        return {name: row[name] for name in (*self.required, *self.optional) if name in row}

    def check_fields(self, fields: Mapping[str, Any]) -> None:
        """Raises `TypeError` where a field is missing or unknown."""
        missing = [name for name in self.required if name not in fields]
        if missing:
            given = ", ".join(fields) or "none"
            raise MissingField(f"grader {self.name} needs the field {missing[0]!r}; it was given {given}")
        if self.optional is None:
            return
        known = [*self.required, *self.optional]
        unknown = [name for name in fields if name not in known]
        if unknown:
            hint = nearest(unknown[0], known)
            raise TypeError(f"grader {self.name} has no field {unknown[0]!r}, only {', '.join(known)}.{hint}")

    def error(self, cause: Exception | str, **metadata: Any) -> GraderError:
        """A result that says why there is no grade."""
        if isinstance(cause, ChatError):
            known = {
                "kind": cause.kind,
                "status": cause.status,
                "attempts": cause.attempts,
                "text": cause.text,
            }
            said = {key: value for key, value in known.items() if value not in (None, "")}
        else:
            kinds = {UnfinishedReasoning: "unfinished", InvalidVerdict: "unparsable", DataError: "data"}
            said = {"kind": next((kind for type_, kind in kinds.items() if isinstance(cause, type_)), "")}
        return GraderError(self.name, str(cause), {**said, **metadata})

    @abstractmethod
    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        """Grade one item whose fields are all there.

        Raises:
            ChatError, InvalidVerdict, DataError: become a `GraderError`.
        """
