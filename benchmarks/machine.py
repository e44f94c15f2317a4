"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from types import ModuleType
from typing import Any


def machine(*modules: ModuleType) -> dict[str, Any]:
    """Processors, threads and versions: of Python, torch, transformers and the `modules`."""
    import torch  # a benchmark whose work is in other processes asks for `processor` only
    import transformers

    versions = {module.__name__: module.__version__ for module in (torch, transformers, *modules)}
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **versions,
    }


def processor() -> str:
    """Its name, as the kernel has it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
