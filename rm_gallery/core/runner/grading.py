"""One pass over a dataset: workers that take one (item, grader) after the other, and the results as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from rm_gallery.core.graders import GraderResult
from rm_gallery.core.runner.dataset import Items

Results = dict[str, GraderResult]
Grade = Callable[[Any, str], Awaitable[GraderResult]]


@dataclass(slots=True)
class _Open:
    """An item that some grader has not done with."""

    index: int
    item: Any
    results: Results
    left: int


@dataclass
class Pass:
    """Grades every item by every grader.

    Args:
        items: the dataset.
        graders: their names.
        grade: (item, grader's name) → its result.
        workers: grades under way at once.
        window: items that are open or wait to be given back, at most; None: no limit.
    """

    items: Items
    graders: tuple[str, ...]
    grade: Grade
    workers: int
    window: int | None = None
    _waiting: deque[tuple[_Open, str]] = field(default_factory=deque)
    _finished: deque[tuple[int, Results]] = field(default_factory=deque)
    _taken: int = 0
    _ended: bool = False
    _error: Exception | None = None

    def __post_init__(self) -> None:
        self._one = asyncio.Lock()  # the dataset is asked for one item at a time
        self._news = asyncio.Event()
        self._room = None if self.window is None else asyncio.Semaphore(self.window)

    async def results(self) -> AsyncGenerator[list[tuple[int, Results]], None]:
        """The results of the items that are done, as they are done.

        Raises:
            Exception: what reading the dataset raised, once all items before it are done; what `grade` raises at once.
        """
        workers = [asyncio.ensure_future(self._work()) for _ in range(self.workers)]
        for worker in workers:
            worker.add_done_callback(lambda _: self._news.set())
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._finished:
                    found = list(self._finished)
                    self._finished.clear()
                    yield found
                ended = [worker for worker in workers if worker.done()]
                for worker in ended:
                    worker.result()
                if len(ended) == len(workers):
                    break
            if self._error is not None:
                raise self._error
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def given_back(self, count: int) -> None:
        """So many items have left the window."""
        if self._room is not None:
            for _ in range(count):
                self._room.release()

    async def _work(self) -> None:
        while (unit := await self._take()) is not None:
            item, name = unit
            item.results[name] = await self.grade(item.item, name)
            item.left -= 1
            if item.left == 0:
                self._finished.append((item.index, {name: item.results[name] for name in self.graders}))
                self._news.set()
            await asyncio.sleep(0)  # a grader that never waits would keep all others from their turn

    async def _take(self) -> tuple[_Open, str] | None:
        async with self._one:
            if not self._waiting and not self._ended:
                if self._room is not None:
                    await self._room.acquire()
                try:
                    item = await self.items.next()
                except StopAsyncIteration:
                    self._ended = True
                except Exception as error:  # noqa: BLE001 (raised once the items before it are done)
                    self._ended, self._error = True, error
                else:
                    opened = _Open(self._taken, item, {}, len(self.graders))
                    self._taken += 1
                    self._waiting.extend((opened, name) for name in self.graders)
            return self._waiting.popleft() if self._waiting else None
