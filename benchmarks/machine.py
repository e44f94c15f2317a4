"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import time
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


def product_rate(side: int, dtype: str) -> float:
    """Operations per second of a product of two square matrices, on the GPU where there is one.

    A processor takes one product; a GPU, which does one in less time than it takes to ask for it, the mean of twenty.
    """
    import torch

    device, products = ("cuda", 20) if torch.cuda.is_available() else ("cpu", 1)
    a, b = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    if device == "cuda":
        for _ in range(5):  # the first chooses a kernel
            a @ b
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(products):
        product = a @ b
    product[0, 0].item()
    return products * 2 * side**3 / (time.perf_counter() - began)


def processor() -> str:
    """Its name, as the kernel has it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
