"""How much memory this process has taken."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory_gib() -> float:
    """The largest resident memory of this process so far, in GiB."""
    if _STATUS.is_file():
        # what `getrusage` says began with the size of the process that started this one
        line = next((x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM")), None)
        if line is not None:
            return round(int(line.split()[1]) / 2**20, 2)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)
