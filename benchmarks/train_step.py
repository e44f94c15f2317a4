"""One GRPO step of our local engine, plain TRL and verl on the same rows: seconds by phase, memory, share of the peak.

    python benchmarks/train_step.py --model MODEL [--dtype float32 bfloat16] [--verl-python .venv-verl/bin/python]
    python benchmarks/train_step.py --model MODEL --grid group --plot benchmarks/results/train_step.png

Systems: `ours` is what `rmg train` runs; `trl` the same with `model.shared_prefix: false`, TRL's computation with our
order of rows; `trl_bare` is `trl.GRPOTrainer` itself with gradient accumulation, at the micro-batch of
`--micro-batches` whose step is fastest and whose memory stays below `--memory-limit`; `verl` is `rmg train --engine
verl` on the CPU; `exact` is method exact on the same prompts: it draws no samples, so it is not the same work, and its
line stands by itself. bfloat16 is the dtype of the computation over float32 weights, in verl that of the weights.

Each system is a process of its own, whose peak memory is the kernel's figure (of verl: the sum over its processes,
shared pages once, looked at every two seconds). All take a step in turn, with a product of two 4096 x 4096 matrices
before each; the others wait, and keep their memory (with `--one-after-another` each takes all its steps before the
next starts, where there is no room for that). verl cannot wait: it runs its steps in one go. The first step of each (on a GPU
three) is not counted; medians of the others are shown. `log_probs` are the old and the reference policy's; TRL and ours know the
old one's to equal the current one's, and only verl computes it.

Prompts have exactly `--prompt` tokens, from the text of the shipped sample (`train_step_rows.py`); all samples have
`--verdict` tokens: the end of the answer is suppressed (verl: ignored) before. Tokens per second count the prompt for
each of its samples. MFU is the unavoidable work over the seconds, by the machine's matrix product; for P prompts,
prompt length L, group G, verdict V (`train_step_counts.py`):

    P x (3 + 1 with a KL term) x [2 W T + 2 H S + 4 A n C],  T = L + G (V - 1), S = 1 + G (V - 1),
    C = L (L + 1) / 2 + G ((V - 1) L + V (V - 1) / 2)

with W the weights of the n layers, H of the head, A the width of attention. A method that computes more, and every
method's optimizer, gets no credit for it. For `exact`, G = 1 and V - 1 is the number of tokens in its tree of verdicts.

The ideal line of the plot is (L + V) G / (L + V G): seconds in proportion to tokens. It leaves out what sharing does
not change (decoding one token at a time, the optimizer, the start of each operation), the attention of long prompts,
which gains more, and that TRL may run at a lower share of the peak than we do.

Results go to benchmarks/results/train_step.json after each configuration; one that stands there is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from machine import processor
from train_step_bench import KL, SYSTEMS, Bench, Settings, write_results
from train_step_report import plot, show

RESULTS = Path(__file__).resolve().parent / "results" / "train_step.json"
GRID = {"prompt": (128, 256, 512, 1024, 2048), "group": (4, 8, 16, 32), "verdict": (8, 32, 64, 256)}


def configurations(given: argparse.Namespace) -> list[Settings]:
    """The asked one first; with `--grid`, one setting at a time moved away from it. For each dtype."""
    asked = {name: getattr(given, name) for name in ("prompt", "prompts", "group", "verdict")}
    found = [asked]
    if given.grid is not None:
        found += [{**asked, name: value} for name in given.grid or GRID for value in GRID[name]]
    common = {"attention": given.attention, "repeats": given.repeats}
    each = [
        {"dtype": dtype, **one, **common}
        for dtype, one in itertools.product(dict.fromkeys(given.dtype), found)
    ]
    return [one for i, one in enumerate(each) if one not in each[:i]]


def open_results(path: Path, fixed: Settings) -> Settings:
    """What is there already, where it was made alike."""
    if not path.is_file():
        return {**fixed, "tuned": [], "configurations": []}
    found = json.loads(path.read_text(encoding="utf-8"))
    if differing := [key for key in fixed if found.get(key) != fixed[key]]:
        raise SystemExit(
            f"{path.name} was made with another {' and another '.join(differing)}: name another file by --out"
        )
    return found


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of a language model")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of each prompt")
    parser.add_argument("--prompts", type=int, default=8, help="distinct prompts a step")
    parser.add_argument("--group", type=int, default=8, help="samples of each prompt")
    parser.add_argument("--verdict", type=int, default=8, help="tokens of each sample")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument(
        "--attention", choices=("sdpa", "eager", "flash_attention_2"), help="of all systems: model.attention"
    )
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, help="by default all; verl where --verl-python is given"
    )
    parser.add_argument("--verl-python", help="the Python of an environment with verl (make verl-cpu)")
    parser.add_argument(
        "--micro-batches",
        type=int,
        nargs="+",
        default=[4, 8, 16, 32, 64],
        help="samples a pass to try for TRL",
    )
    parser.add_argument("--memory-limit", type=float, default=20.0, help="GiB, of TRL's process")
    parser.add_argument("--micro-ours", type=int, help="our prompts a pass; by default all")
    parser.add_argument("--checkpoint-ours", action="store_true", help="ours with gradient checkpointing")
    parser.add_argument(
        "--grid", nargs="*", choices=GRID, help=f"also each of {GRID}, one at a time; or of those named"
    )
    parser.add_argument("--repeats", type=int, default=5, help="steps that count")
    parser.add_argument(
        "--one-after-another", action="store_true", help="one system in memory at a time, with all its steps"
    )
    parser.add_argument("--threads", type=int, help="of each process")
    parser.add_argument("--side", type=int, default=4096, help="of the matrices of the peak")
    parser.add_argument(
        "--work", type=Path, help="where rows and logs go; by default a folder that is removed"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, help="PNG of speed-up against group size")
    parser.add_argument("--table", action="store_true", help="only print the table (and plot) of --out")
    given = parser.parse_args(words)
    if given.systems is None:
        given.systems = [name for name in SYSTEMS if name != "verl" or given.verl_python]
    if "verl" in given.systems and not given.verl_python:
        parser.error("system verl needs --verl-python")
    if given.model is None and not given.table:
        parser.error("--model is needed: the folder of a language model")
    return given


def main(words: Sequence[str] | None = None) -> int:
    given = parse(words)
    if given.table:
        results = json.loads(given.out.read_text(encoding="utf-8"))
    else:
        results = open_results(
            given.out,
            {
                "model": Path(given.model).name,
                "machine": {
                    "cpus": os.cpu_count(),
                    "processor": processor(),
                    "python": platform.python_version(),
                },
                "threads": given.threads,
                "kl_coef": KL,
                "memory_limit_gib": given.memory_limit,
                "micro_ours": given.micro_ours,
                "checkpoint_ours": given.checkpoint_ours,
                "matrix_side": given.side,
            },
        )
        with tempfile.TemporaryDirectory() as temporary:
            work = given.work or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            run(given, results, work.absolute())
    show(results)
    if given.plot:
        plot(results, given.plot)
    last = results["configurations"]
    return int(any("failed" in system for one in last for system in one["systems"].values()))


def run(given: argparse.Namespace, results: Settings, work: Path) -> None:
    """Measure what is missing, and write after each configuration."""
    bench = Bench(given, results, work)
    for one in configurations(given):
        said = ", ".join(f"{name} {value}" for name, value in one.items() if value is not None)
        before = next(
            (each for each in results["configurations"] if all(each[key] == one[key] for key in one)), None
        )
        had = {} if before is None else before["systems"]
        missing = [name for name in given.systems if name not in had or "failed" in had[name]]
        if not missing:
            print(f"{said}: measured already", file=sys.stderr)
            continue
        print(f"{said} …", file=sys.stderr, flush=True)
        # what is compared was measured in turn: one that is missing takes the others along
        again = [name for name in SYSTEMS if name in missing or name in had]
        measured = bench.measure(one, again)
        if before is not None:
            results["configurations"].remove(before)
        results["configurations"].append(measured)
        write_results(given.out, results)


if __name__ == "__main__":
    sys.exit(main())
