"""One event loop in a thread of its own, for whatever talks to the network.

A connection belongs to the loop that opened it, and callers come with loops that end (`asyncio.run`), that cannot be
waited in (a notebook's) or with none. On this loop the connections live on, and one limit holds for all callers.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent import futures
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_SECONDS = 0.5

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the background loop; cancelling the future cancels it."""
    return asyncio.run_coroutine_threadsafe(coroutine, _running())


async def hop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that runs on the background loop, from any loop."""
    return await asyncio.wrap_future(submit(coroutine))


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for it, also where another loop runs (a notebook).

    Raises:
        RuntimeError: this is the background loop, which would wait for itself for ever: await instead.
    """
    if _here():
        coroutine.close()
        raise RuntimeError(
            "this runs on the loop that it would wait for: await it (achat, aevaluate, …) instead"
        )
    future = submit(coroutine)
    try:
        while not futures.wait([future], _SECONDS).done:
            pass  # a signal that comes just before a wait begins does not end it: Ctrl-C is seen at the next one
        return future.result()
    except BaseException:
        future.cancel()  # Ctrl-C while waiting
        raise


def stream(
    ask: Callable[[int], Coroutine[Any, Any, T]], positions: Iterable[int], *, width: int
) -> Generator[dict[int, T], None, None]:
    """Run `ask(position)` for all positions, `width` at a time, and yield the results as they come, by position.

    An exception of one ends all and is raised; so does closing the generator.
    """
    results: queue.SimpleQueue[tuple[int, T] | None] = queue.SimpleQueue()
    left = iter(positions)

    async def work() -> None:
        for position in left:
            results.put((position, await ask(position)))

    async def all_workers() -> None:
        workers = [asyncio.ensure_future(work()) for _ in range(width)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    future = submit(all_workers())
    future.add_done_callback(lambda _: results.put(None))
    try:
        ended = False
        while not ended:
            found = [results.get()]
            while not results.empty():  # this thread is the only one that takes
                found.append(results.get())
            ended = None in found
            if some := dict(filter(None, found)):
                yield some
        future.result()
    finally:
        future.cancel()


def _running() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="rm-gallery-network", daemon=True).start()
        return _loop


def _here() -> bool:
    try:
        return asyncio.get_running_loop() is _loop
    except RuntimeError:
        return False


def _after_fork() -> None:
    """A child has the loop's memory and not its thread."""
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):  # where there is no fork there is nothing to mend
    os.register_at_fork(after_in_child=_after_fork)
