"""What a run shows in the terminal: how many grades are done, and how many of them are errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_EVERY = 0.1  # seconds


class Shown(Protocol):
    """A bar, or nothing."""

    def __call__(self, grades: int, errors: int) -> None:
        """So many more grades are done, so many of them errors."""
        ...


@contextmanager
def progress(name: str, total: int | None, *, shown: bool = True) -> Iterator[Shown]:
    """A bar on stderr, where that is a terminal; of a stream whose length nobody knows, a count."""
    if not shown or not sys.stderr.isatty():
        yield lambda grades, errors: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(name, total=total, failed="")
        done = failed = 0
        drawn_at = 0.0

        def advance(grades: int, errors: int) -> None:
            nonlocal done, failed, drawn_at
            done, failed = done + grades, failed + errors
            if time.monotonic() - drawn_at > _EVERY or done == total:
                drawn.update(task, completed=done, failed=f"{failed} failed" if failed else "")
                drawn_at = time.monotonic()

        yield advance
