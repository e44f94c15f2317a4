"""What a benchmark with torch ran on."""

from __future__ import annotations

import os
import platform
from types import ModuleType
from typing import Any

import torch
import transformers


def machine(*modules: ModuleType) -> dict[str, Any]:
    """Processors, threads and versions: of Python, torch, transformers and the `modules`."""
    versions = {module.__name__: module.__version__ for module in (torch, transformers, *modules)}
    return {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **versions,
    }
