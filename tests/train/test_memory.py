"""The peak of a process is its own, and not that of the one that started it."""

from __future__ import annotations

import subprocess
import sys


def test_a_small_process_of_a_large_one_is_small():
    large = bytearray(400 * 2**20)
    large[::4096] = b"x" * len(large[::4096])  # in memory, not only promised
    code = "from rm_gallery.core.memory import peak_memory_gib; print(peak_memory_gib())"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert 0 < float(shown) < 0.2
    assert len(large) > 0
