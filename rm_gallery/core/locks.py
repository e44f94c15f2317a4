"""One writer a file."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from rm_gallery.core.errors import ConfigError


def lock(file: IO[Any], path: Path, advice: str) -> None:
    """Keep `file`, open for writing, to this process until it is closed.

    Raises:
        ConfigError: another one has it; `advice` says what to do.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps two runs apart there
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{path} is written by another run: {advice}") from None
    except OSError:
        return  # a file system without locks
