"""Memory that a model's passes on a CPU let go of and ask for again."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's `mallopt` (malloc.h)."""
_NEVER = 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next tensors: whether it does now.

    glibc gives a large tensor's memory back to the system as soon as it is freed, and each page of the next one has to
    be mapped and cleared when it is first written. The activations of a pass are some hundred tensors of ten megabytes
    and more, so that this takes a seventh of a pass here, and more where several cores wait for one another at it or a
    virtual machine has to ask its host. Kept, the pages are there already. What the process holds is then the most that
    it has needed, and somewhat more where sizes differ (`docs/speed.md`).

    Nothing is changed beside a GPU, where passes have its memory, nor where the user has chosen: an environment variable
    `MALLOC_…` or `GLIBC_TUNABLES`, another allocator in `LD_PRELOAD`; nor where the C library is not glibc.
    """
    chosen = [
        name
        for name, value in os.environ.items()
        if value and (name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD"))
    ]
    if chosen or platform.libc_ver()[0] != "glibc" or torch.cuda.is_available():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, _NEVER)])
