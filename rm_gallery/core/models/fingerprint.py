"""What tells two saved models apart without reading them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".json", ".jinja", ".model", ".txt")


def model_fingerprint(path: str | os.PathLike[str]) -> str:
    """A digest of the path, and of each file's size and time of change."""
    folder = Path(path).expanduser()
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder] if folder.is_file() else []
    seen = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.is_file() and file.suffix in _WEIGHTS
    ]
    return hashlib.sha256(repr((str(folder.resolve()), seen)).encode()).hexdigest()
