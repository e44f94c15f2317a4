"""When a request that failed is made again: exponential backoff with full jitter, and what `Retry-After` asks for."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

RETRIED = frozenset({408, 429, 500, 502, 503, 504, 529})
"""The statuses that may be another one at the next attempt."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt, in seconds.

    The wait before retry k (from 0) is drawn evenly from [0, min(`longest`, `first` * 2^k)]: "full jitter" of Marc
    Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). What a server asks for comes on top, so
    that those who were sent away together do not come back together; more than `longest_asked` is not granted.
    """

    first: float = 0.5
    longest: float = 30.0
    longest_asked: float = 60.0

    def ceiling(self, retry: int) -> float:
        """The longest wait that can be drawn before this retry."""
        return min(self.longest, self.first * 2.0 ** min(retry, 64))

    def delay(
        self,
        retry: int,
        asked: float | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> float:
        """The wait before this retry, where the server `asked` for so many seconds."""
        return min(asked or 0.0, self.longest_asked) + uniform(0.0, self.ceiling(retry))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a response's `Retry-After` asks for, as a number or a date (RFC 9110, 10.2.3).

    None where it asks for nothing, or for something that is neither. A date counts from the server's own `Date`, whose
    clock it was written by.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = _date(value)
        if until is None:
            return None
        now = _date(headers.get("date", "")) or datetime.now(timezone.utc)
        return max(0.0, (until - now).total_seconds())
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)
