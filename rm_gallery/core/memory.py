"""How much memory this process has taken."""

from __future__ import annotations

import resource
import sys


def peak_memory_gib() -> float:
    """The largest resident memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)
