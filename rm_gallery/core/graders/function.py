"""`FunctionGrader`: one's own function as a grader."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from rm_gallery.core.errors import ConfigError, DataError, InvalidVerdict
from rm_gallery.core.graders.base import BaseGrader, GraderMode
from rm_gallery.core.graders.result import GraderError, GraderRank, GraderResult, GraderScore
from rm_gallery.core.models.chat import ChatError


class FunctionGrader(BaseGrader):
    """Grades by a function, whose parameters are the fields; `async` or not.

    It returns a number (True is 1), or a `GraderScore`, `GraderRank` or `GraderError`. What it raises is a
    `GraderError`, and so is anything else that it returns, NaN included. A function that is not `async` runs in a
    thread, so that one that waits does not hold up the others: it may run several times at once.

    Args:
        func: parameters without a default are required; `**fields` takes all others.
        name: by default the function's own.
        mode: `listwise` where it ranks `responses`.

    Raises:
        ConfigError: a parameter can only be given by position.
    """

    def __init__(
        self, func: Callable[..., Any], *, name: str | None = None, mode: GraderMode = "pointwise"
    ) -> None:
        self.func = func
        self.name = name or str(getattr(func, "__name__", type(func).__name__))
        self.mode = mode
        parameters = inspect.signature(func).parameters.values()
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
        if wrong := [parameter.name for parameter in parameters if parameter.kind in by_position]:
            raise ConfigError(
                f"grader {self.name}: fields are given by name, which {wrong[0]!r} does not take"
            )
        named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
        self.required = tuple(p.name for p in named if p.default is inspect.Parameter.empty)
        others = tuple(p.name for p in named if p.default is not inspect.Parameter.empty)
        self.optional = others if len(named) == len(parameters) else None
        call = getattr(func, "__call__", None)  # noqa: B004 - an object's own, which may be a coroutine function
        self._awaits = inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(call)

    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        try:
            value = await (self.func(**fields) if self._awaits else asyncio.to_thread(self.func, **fields))
            if inspect.isawaitable(value):  # a plain function that hands a coroutine on
                value = await value
            if isinstance(value, GraderScore | GraderRank | GraderError):
                return value
            if not hasattr(value, "__float__"):
                return self.error(
                    f"it returned {repr(value)[:80]}, expected a number or a result", kind="function"
                )
            return GraderScore(self.name, float(value))
        except (ChatError, InvalidVerdict, DataError):
            raise  # of what the function asks or reads: their own kind says more
        except Exception as error:  # noqa: BLE001 - whatever one's own code raises is a result
            return self.error(f"{type(error).__name__}: {error}", kind="function")
