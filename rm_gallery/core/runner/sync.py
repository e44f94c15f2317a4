"""`wait`: what is awaited, for code that does not await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_SECONDS = 0.5


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread of its own where this one has a loop already (a notebook's)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    result: list[T] = []
    raised: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
    stopped = threading.Event()

    async def main() -> None:
        task = asyncio.ensure_future(coroutine)
        running.append((asyncio.get_running_loop(), task))
        if stopped.is_set():  # before there was something to cancel
            task.cancel()
        result.append(await task)

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits)
            raised.append(error)

    thread = threading.Thread(target=work, name="rm-gallery-runner")
    try:
        thread.start()
        while thread.is_alive():
            # a signal that comes just before a wait begins does not end it: Ctrl-C would be seen when all is done
            thread.join(_SECONDS)
    except BaseException:  # Ctrl-C: what is under way is given up
        stopped.set()
        for loop, task in running:
            with suppress(RuntimeError):  # it has ended just now
                loop.call_soon_threadsafe(task.cancel)
        with suppress(RuntimeError):  # it was interrupted while it started, and ends by itself
            thread.join()
        raise
    if raised:
        raise raised[0]
    return result[0]
