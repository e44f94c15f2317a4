"""What a judge learns from each reward: method `exact` from one start, on the same rows, by each of its rewards.

    python benchmarks/rewards.py --model runs/start/actor_latest --train ratings_train.parquet \\
        --val ratings_test.parquet [--rewards exp_decay rps log_score] [--seeds 0 1 2] [--steps 50]

Each reward has the learning rate of one grid at which it earns most, on prompts set apart from the training rows
(`benchmarks/exact.py`). Held-out rows are judged in mode `expected`, and all figures are of that distribution: `kappa`,
`mae` and `reward` (`exp_decay`, whatever it was trained by) of the verdict with the largest probability, `rps`, `brier` and
`ece` of all of it. Shown are means over the seeds, with the smallest and the largest, beside the start and what costs
nothing. Finished runs under `--work` are neither trained nor judged again. Results go to benchmarks/results/rewards.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from exact_runs import once, prepare, settings_of, trained, tune
from machine import machine

from rm_gallery.core.evaluate import compute_baselines, compute_metrics, score_outputs
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.weights import resolve_dtype
from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.core.train.log import read_log

RESULTS = Path(__file__).resolve().parent / "results" / "rewards.json"
SHOWN = ("kappa", "accuracy", "mae", "reward", "rps", "brier", "ece", "mass")
"""Of a distribution; the first four of the verdict with its largest probability."""


def figures(
    folder: str | Path, rows: list[dict[str, Any]], task: PointwiseTask, dtype: str
) -> dict[str, float]:
    judge = LocalJudge.load(folder, dtype=dtype)
    answers = judge.answer(task, [task.messages(row) for row in rows], mode="expected", max_new_tokens=16)
    found = compute_metrics(score_outputs(task, rows, answers))
    return {name: found[name] for name in SHOWN}


def baselines(task: PointwiseTask, train: list, rows: list) -> dict[str, dict[str, float]]:
    """Those that read nothing, fitted on the training rows."""
    found = {}
    for each in compute_baselines(task, rows, train):
        if each.predictions is not None:
            measured = compute_metrics(each.predictions)
            known = {name: measured[name] for name in SHOWN if name in measured}
            # what a predictor cannot say is not a number: it writes no text that could have a mass
            found[each.name] = {name: value for name, value in known.items() if not math.isnan(value)}
    return found


def show(found: dict[str, Any]) -> None:
    print("\n" + " " * 16 + "".join(f"{name:>24}" for name in SHOWN))

    def line(name: str, cells: list[str]) -> None:
        print(f"{name:16}" + "".join(f"{cell:>24}" for cell in cells))

    for name, values in {**found["baselines"], "start": found["start"]}.items():
        line(name, [f"{values[key]:.3f}" if key in values else "" for key in SHOWN])
    for name, each in found["rewards"].items():
        runs = list(each["runs"].values())
        cells = []
        for key in SHOWN:
            values = [run[key] for run in runs]
            cells.append(f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        line(name, cells)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a model after a supervised start")
    parser.add_argument("--train", required=True, type=Path, help="rows to train on, and to choose rates by")
    parser.add_argument("--val", required=True, type=Path, help="held-out rows")
    parser.add_argument("--rewards", nargs="+", default=["exp_decay", "rps", "log_score"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--instruction", help="replaces the task's own")
    parser.add_argument("--kl-coef", type=float, default=0.001)
    parser.add_argument("--grid", type=float, nargs="+", default=[3e-6, 1e-5, 3e-5, 1e-4])
    parser.add_argument("--tune-prompts", type=int, default=64, help="set apart to choose the rates by")
    parser.add_argument("--tune-seeds", type=int, default=3, help="runs for each rate")
    parser.add_argument("--limit", type=int, help="rows of each file; by default all")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts a step and an update")
    parser.add_argument("--micro-batch-size", type=int, help="prompts a pass; memory only")
    parser.add_argument("--max-prompt-length", type=int, default=1024, help="longer prompts are left out")
    parser.add_argument("--max-response-length", type=int, default=16)
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument("--work", type=Path, default=Path("runs/rewards"), help="where the runs go")
    parser.add_argument("--out", type=Path, default=RESULTS)
    # what `benchmarks/exact.py` asks beside
    parser.set_defaults(task="pointwise", dimensions=None, samples=2, shuffle="rows", advantage="group_std")
    parser.set_defaults(grpo_eval_every=None, exact_eval_every=None, exact_steps=None, eval_batch_size=16)
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    task = PointwiseTask(instruction=arguments.instruction)
    rows, files = prepare(task, arguments)
    held_out = rows["val"]
    found: dict[str, Any] = {}
    for reward in arguments.rewards:
        each = argparse.Namespace(**{**vars(arguments), "reward": reward, "work": arguments.work / reward})
        print(reward, flush=True)
        rate = tune("exact", {"train": files["train"], "val": files["tune"]}, each)
        runs = {}
        for seed in arguments.seeds:
            config = settings_of("exact", rate["chosen"], seed, {"train": files["train"]}, each)
            folder = trained(f"exact-{seed}", config, each.work, files)
            asked = (folder / "actor_latest", held_out, task, arguments.dtype)
            measured = once(folder / "figures.json", figures, *asked)
            steps = read_log(folder / "metrics.jsonl")
            runs[str(seed)] = {**measured, "seconds": sum(step["timing_s/step"] for step in steps)}
            said = ", ".join(f"{name} {measured[name]:.3f}" for name in ("kappa", "rps", "ece"))
            print(f"  seed {seed}: {said}", flush=True)
        found[reward] = {"learning_rate": rate, "runs": runs}
    shown = ("steps", "seeds", "kl_coef", "grid", "tune_prompts", "tune_seeds", "limit", "batch_size")
    results = {
        "machine": machine(),
        "model": Path(arguments.model).name,
        "data": {"train": arguments.train.name, "val": arguments.val.name},
        "rows": {name: len(part) for name, part in rows.items()},
        "dtype": str(resolve_dtype(arguments.dtype)).removeprefix("torch."),
        "settings": {name: getattr(arguments, name) for name in shown},
        "start": figures(arguments.model, held_out, task, arguments.dtype),
        "baselines": baselines(task, rows["train"], held_out),
        "rewards": found,
    }
    show(results)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
