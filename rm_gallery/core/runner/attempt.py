"""One grade: taken from the journal, or asked for, guarded, and asked for again where that may help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders import BaseGrader, GraderError, GraderRank, GraderResult, GraderScore
from rm_gallery.core.models.retry import Backoff
from rm_gallery.core.runner.config import GraderConfig, at_path
from rm_gallery.core.runner.identity import grader_identity, item_key
from rm_gallery.core.runner.journal import GradingJournal, keeps

RETRIED = frozenset({"unreachable", "connection", "timeout", "truncated", "rate_limited", "server"})
"""The kinds of a `GraderError` that may be another one at the next attempt."""


@dataclass
class Grading:
    """How one pass comes by a grade: from the journal, from an equal item that is under way, or by asking for it.

    Args:
        configs: the graders.
        places: the limit of grades under way.
        item_id: as `GradingRunner` takes it.
    """

    configs: Mapping[str, GraderConfig]
    places: asyncio.Semaphore
    journal: GradingJournal | None
    item_id: str | Callable[[Any], Any] | None
    retries: int
    backoff: Backoff
    _under_way: dict[str, asyncio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.configs.items() if self.journal is not None else ()
        self._identities = {name: grader_identity(name, config.grader) for name, config in known}

    async def grade(self, item: Any, name: str) -> GraderResult:
        """The result of the grader `name`; an item that cannot be given to it is an error like any other."""
        config = self.configs[name]
        try:
            if isinstance(item, BadRow):
                raise item
            fields = config.fields(item)
            key = None if self.journal is None else item_key(self._identities[name], fields, self._id(item))
        except Exception as error:  # noqa: BLE001 (one's own mapper, or an item like no other)
            return failure(config.grader.name, error)
        if self.journal is None or key is None:
            async with self.places:
                return await grade(config.grader, fields, retries=self.retries, backoff=self.backoff)
        while (other := self._under_way.get(key)) is not None:
            await other.wait()
        if (known := self.journal.get(key)) is not None:
            return known
        self._under_way[key] = asyncio.Event()
        try:
            async with self.places:
                result = await grade(config.grader, fields, retries=self.retries, backoff=self.backoff)
                # still in its place: a kill costs no more grades than there are places
                return _kept(self.journal, key, name, result)
        finally:
            self._under_way.pop(key).set()

    def _id(self, item: Any) -> Any:
        if self.item_id is None:
            return None
        return at_path(item, self.item_id) if isinstance(self.item_id, str) else self.item_id(item)


def _kept(journal: GradingJournal, key: str, name: str, result: GraderResult) -> GraderResult:
    if not keeps(result):
        return result
    try:
        return journal.add(key, name, result)
    except TypeError as error:
        said = f"grader {result.name} gave metadata that is no JSON, which a journal cannot keep: {error}"
        return GraderError(result.name, said, {"kind": "exception"})


async def grade(
    grader: BaseGrader, fields: Mapping[str, Any], *, retries: int, backoff: Backoff
) -> GraderResult:
    """The grader's result; whatever it raises is a `GraderError` with its cause.

    Cancellation, `KeyboardInterrupt` and `SystemExit` pass. An error that was retried says so in its metadata
    (`retries`).
    """
    retry = 0
    while True:
        result = await _once(grader, fields)
        if not isinstance(result, GraderError):
            return result
        if result.kind not in RETRIED or retry == retries:
            return replace(result, metadata={**result.metadata, "retries": retry}) if retry else result
        await asyncio.sleep(backoff.delay(retry))
        retry += 1


def failure(name: str, error: Exception | asyncio.CancelledError) -> GraderError:
    """An exception as a result."""
    kinds: list[tuple[tuple[type[BaseException], ...], str]] = [
        ((asyncio.CancelledError,), "cancelled"),
        ((TimeoutError, asyncio.TimeoutError), "timeout"),
        ((ConnectionError,), "connection"),
        ((DataError,), "data"),
        ((ConfigError,), "config"),
    ]
    kind = next((kind for types, kind in kinds if isinstance(error, types)), "exception")
    said = " ".join(str(error).split())
    sentence = said if kind in ("data", "config") and said else f"{type(error).__name__}: {said}".rstrip(": ")
    return GraderError(name, sentence, {"kind": kind, "exception": type(error).__name__})


async def _once(grader: BaseGrader, fields: Mapping[str, Any]) -> GraderResult:
    try:
        result: Any = await grader.aevaluate(**fields)
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        return failure(grader.name, error)  # something inside was: a request whose connections were closed
    except Exception as error:  # noqa: BLE001 (whatever it is, one item's trouble is not the others')
        return failure(grader.name, error)
    if isinstance(result, (GraderScore, GraderRank, GraderError)):
        return result
    return GraderError(
        grader.name,
        f"grader {grader.name} gave a {type(result).__name__}, expected a GraderScore, GraderRank or GraderError",
        {"kind": "exception"},
    )


def _is_cancelled() -> bool:
    """Whether this task itself is being cancelled. Python 3.10 does not say, so there it is."""
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return cancelling is None or cancelling() > 0
