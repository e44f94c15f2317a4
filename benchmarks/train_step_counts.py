"""What the benchmark counts: the operations are those of `rmg estimate`."""

from __future__ import annotations

from rm_gallery.core.estimate.counts import (
    Shape,
    encoded,
    forward_operations,
    ideal_speed_up,
    scored,
    seen,
    step_operations,
)

__all__ = [
    "Shape",
    "encoded",
    "forward_operations",
    "ideal_speed_up",
    "largest_divisor",
    "scored",
    "seen",
    "step_operations",
]


def largest_divisor(number: int, most: float) -> int:
    """The largest divisor of `number` that is at most `most`; 1 where `most` is below it."""
    return max(d for d in range(1, number + 1) if number % d == 0 and (d <= most or d == 1))
