"""What a machine can do at most, from its data sheet or measured on the spot, and what share of it is reached."""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass, replace

from rm_gallery.core.errors import ConfigError, nearest

GB = 10**9
TERA = 10**12


@dataclass(frozen=True)
class Range:
    """A figure that is not known exactly; `middle` is what is shown where there is room for one."""

    low: float
    middle: float
    high: float

    @classmethod
    def between(cls, low: float, high: float) -> Range:
        """The middle is the geometric mean: as many times above the low end as below the high one."""
        return cls(low, math.sqrt(low * high), high)

    def times(self, factor: float) -> Range:
        return Range(self.low * factor, self.middle * factor, self.high * factor)

    def plus(self, other: Range) -> Range:
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def most(self, other: Range) -> Range:
        """The larger of both, end by end."""
        return Range(max(self.low, other.low), max(self.middle, other.middle), max(self.high, other.high))


NOTHING = Range(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Machine:
    """One device.

    Attributes:
        bfloat16, float32: operations per second of a dense matrix product at most, by dtype.
        bandwidth: bytes per second between memory and processor at most.
        memory: bytes.
        source: where the figures are from.
    """

    name: str
    bfloat16: float
    float32: float
    bandwidth: float
    memory: float
    source: str
    gpu: bool = True

    def peak(self, dtype: str) -> float:
        return self.float32 if dtype == "float32" else self.bfloat16


# Dense products, without the sparsity that the sheets' larger figures assume. float32 is that of the plain units:
# PyTorch does not round to TF32 unless it is told to.
MACHINES = {
    "a100": Machine("A100 80 GB SXM", 312 * TERA, 19.5 * TERA, 2039 * GB, 80 * GB, "NVIDIA A100 data sheet"),
    "h100": Machine("H100 SXM", 989 * TERA, 67 * TERA, 3350 * GB, 80 * GB, "NVIDIA H100 data sheet"),
    "h200": Machine("H200 SXM", 989 * TERA, 67 * TERA, 4800 * GB, 141 * GB, "NVIDIA H200 data sheet"),
    "l4": Machine("L4", 121 * TERA, 30.3 * TERA, 300 * GB, 24 * GB, "NVIDIA L4 data sheet"),
    "rtx4090": Machine(
        "GeForce RTX 4090", 165.2 * TERA, 82.6 * TERA, 1008 * GB, 24 * GB, "NVIDIA Ada GPU architecture paper"
    ),
}

GPU_COMPUTE = Range.between(0.1, 0.45)
"""Share of a GPU's peak in matrix work. An assumption: this project has measured nothing on a GPU. Well-tuned training of
large models is reported at 0.38 to 0.43 of an H100 (Grattafiori et al. 2024, Llama 3); small batches reach less."""
GPU_BANDWIDTH = Range.between(0.2, 0.7)
"""Share of a GPU's bandwidth while decoding. An assumption too."""
LAUNCH = {"transformers": Range(3e-4, 6e-4, 1.2e-3), "vllm": Range(2e-5, 5e-5, 1.2e-4)}
"""Seconds a layer that a pass takes at least on a GPU, however little it computes, because the processor hands over each
kernel (vLLM replays recorded ones). An assumption."""
STREAM = Range.between(0.4, 0.9)
"""Share of the bandwidth that the optimizer reaches, which goes through memory once from end to end. An assumption."""
CPU_COMPUTE = Range(0.3, 0.55, 0.85)
"""Share of a CPU's product of large matrices. Measured on two cores in bfloat16 with SmolLM2-135M: 53% in the update of a GRPO
step and 62% in its log-probabilities (`benchmarks/train_step.py`), 56% to 68% in judging (`benchmarks/judge.py`); less
beside other work (`benchmarks/estimate.py` gives a run's own)."""
CPU_BANDWIDTH = Range(0.1, 0.3, 0.45)
"""Share of a CPU's copying speed while decoding: 2.5 to 4.1 GB/s in runs of GRPO on one core each, where copying reached 9
to 11."""


def find_machine(name: str) -> Machine:
    """One of `MACHINES`, or `cpu`, which is measured now. Raises `ConfigError`."""
    key = name.lower().replace(" ", "").replace("-", "").replace("_", "")
    key = {"4090": "rtx4090", "a10080g": "a100", "a10080gb": "a100"}.get(key, key)
    if key == "cpu":
        return measure_cpu()
    if key not in MACHINES:
        known = ["cpu", *MACHINES]
        raise ConfigError(f"there is no machine {name!r}; known are {', '.join(known)}.{nearest(key, known)}")
    return MACHINES[key]


def this_machine() -> Machine:
    """The GPU that is visible here, where its figures are known, else the processor, measured now. Raises `ConfigError`."""
    try:
        import torch
    except ImportError:
        raise ConfigError(f"name the machine: --machine {' or '.join(MACHINES)}") from None
    if not torch.cuda.is_available():
        return measure_cpu()
    # by whole words: L4 is in L40S, A100 in A1000
    parts = re.split(r"[^A-Z0-9]+", torch.cuda.get_device_name().upper().replace("RTX ", "RTX"))
    for key, machine in MACHINES.items():
        if key.upper() in parts:
            # a card of one name comes with more than one memory
            return replace(machine, memory=float(torch.cuda.get_device_properties(0).total_memory))
    raise ConfigError(
        f"the figures of {torch.cuda.get_device_name()} are not known here: name a machine like it, --machine "
        f"{' or '.join(MACHINES)}, or calibrate with --from RUN"
    )


def measure_cpu(seconds: float = 2.0) -> Machine:
    """This machine's processor: products of large matrices and copies, for about so many seconds.

    Raises:
        MissingDependency: torch is not installed.
    """
    from rm_gallery.core.models.require import require

    require("train", "torch")
    import torch

    def fastest(run: object, budget: float) -> float:
        assert callable(run)
        run()  # the first one also sets up
        best, until = math.inf, time.perf_counter() + budget
        while time.perf_counter() < until:
            began = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - began)
        return best

    side, found = 2048, {}
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        found[dtype] = 2 * side**3 / fastest(lambda a=a, b=b: a @ b, seconds * 0.4)
    source = torch.zeros(64 << 20)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / fastest(lambda: target.copy_(source), seconds * 0.2)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    name = f"this CPU, {torch.get_num_threads()} threads"
    said = "measured now: a product of 2048 x 2048, a copy"
    return Machine(name, found[torch.bfloat16], found[torch.float32], copied, memory, said, gpu=False)
