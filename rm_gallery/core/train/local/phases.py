"""Where a trainer's seconds go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch


class PhasesMixin:
    """Counts the seconds of a step by phase; the recorder writes them and starts anew."""

    @cached_property
    def seconds(self) -> dict[str, float]:
        """By phase."""
        return {}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time spent inside to `seconds[phase]`."""
        settle()
        started = time.perf_counter()
        try:
            yield
        finally:
            settle()
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started


def settle() -> None:
    """Wait until a GPU has done what it was given: its work goes on when a call returns."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
