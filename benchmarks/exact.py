"""Held-out reward against wall-clock: `grpo` and `exact` from one start, on the same rows in the same order.

    python benchmarks/exact.py --model runs/start/actor_latest --train ratings_train.parquet \\
        --val ratings_test.parquet [--seeds 0 1 2 3 4] [--steps 50]

`--model` is a model that keeps to the format (method sft): both want that start. Each method gets the learning rate of
one grid that earns most on prompts taken out of the training rows, `grpo` after its last step, `exact` in the mean over
its run, for that is what each is asked for; all runs that count train on the others. Then each seed trains by both, one
after the other, so that what else the machine does is shared. Seconds are those of training steps: neither loading nor
held-out evaluation, which is by greedy answers for both.

What is asked: after how much of GRPO's time does `exact` have the reward that GRPO has after its last step, in the means
over seeds? From when on it holds that stands beside it, and both by seed. There is no answer where GRPO's own gain is
within noise: the 95% interval over resamples of prompts and seeds must lie above 0. Finished runs under `--work` are
neither trained nor judged again. Results go to benchmarks/results/exact.json, and a plot beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path

import numpy as np
import torch
import trl
from exact_figures import METHODS, compare, interval, plot, show
from exact_runs import curve, once, prepare, rewards, settings_of, train_at_once, trained, tune, warm_up
from machine import machine

from rm_gallery.core.models.weights import resolve_dtype

RESULTS = Path(__file__).resolve().parent / "results" / "exact.json"
# fmt: off
SETTINGS = (
    "steps", "exact_steps", "seeds", "task", "dimensions", "reward", "kl_coef", "shuffle", "advantage", "grid",
    "tune_prompts", "tune_seeds", "limit", "batch_size", "samples",
)
# fmt: on


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="folder of a model after a supervised start")
    parser.add_argument("--train", type=Path, help="rows to train on, and to choose the rate by")
    parser.add_argument("--val", type=Path, help="held-out rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument(
        "--exact-steps",
        type=int,
        help="of method exact; by default as many. The rate is constant: fewer are the beginning of more",
    )
    parser.add_argument("--task", default="pointwise")
    parser.add_argument("--dimensions", nargs="+", help="labels of the rows to be scored, in place of --task")
    parser.add_argument("--instruction", help="replaces the task's own")
    parser.add_argument("--reward", default="auto", help="of single verdicts: GRPO knows no other")
    parser.add_argument("--kl-coef", type=float, default=0.001)
    parser.add_argument("--shuffle", choices=("rows", "prompts"), default="rows", help="data.shuffle of both")
    parser.add_argument(
        "--advantage", choices=("group_std", "group_mean"), default="group_std", help="GRPO's loss.advantage"
    )
    parser.add_argument("--grid", type=float, nargs="+", default=[3e-6, 1e-5, 3e-5, 1e-4])
    parser.add_argument(
        "--tune-prompts", type=int, default=64, help="set apart to choose the learning rate by"
    )
    parser.add_argument(
        "--tune-seeds", type=int, default=3, help="runs for each rate; one is chance where batches are small"
    )
    parser.add_argument("--limit", type=int, help="rows of each file; by default all")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts a step and an update")
    parser.add_argument("--micro-batch-size", type=int, help="prompts a pass; memory only")
    parser.add_argument("--samples", type=int, default=8, help="GRPO's answers to each prompt")
    parser.add_argument("--max-prompt-length", type=int, default=1024, help="longer prompts are left out")
    parser.add_argument("--max-response-length", type=int, default=16)
    parser.add_argument("--eval-batch-size", type=int, default=16, help="held-out rows judged at once")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time while the rates are chosen")
    parser.add_argument("--grpo-eval-every", type=int, default=10)
    parser.add_argument(
        "--exact-eval-every", type=int, default=1, help="of as many steps; it has to be seen early"
    )
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument("--work", type=Path, default=Path("runs/exact"), help="where the runs go")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--table", action="store_true", help="only print the table of --out, and draw its plot"
    )
    arguments = parser.parse_args()
    if not arguments.table and None in (arguments.model, arguments.train, arguments.val):
        parser.error("--model, --train and --val are needed, or --table")
    return arguments


def main() -> None:
    arguments = parsed()
    if arguments.table:
        found = json.loads(arguments.out.read_text(encoding="utf-8"))
        show(found)
        plot(found, arguments.out.with_suffix(".png"))
        return
    probe = settings_of("grpo", 1.0, 0, {"train": arguments.train, "val": arguments.val}, arguments)
    task = probe.build_task()
    rows, files = prepare(task, arguments)
    held_out = rows["val"]
    apart = {"train": files["train"], "val": files["tune"]}
    if arguments.jobs > 1 and len(arguments.grid) > 1:
        train_at_once(METHODS, apart, arguments)
    if torch.cuda.is_available():
        warm_up(METHODS, files, arguments)
    tuned = {method: tune(method, apart, arguments, early=method == "exact") for method in METHODS}
    prompts = [task.cluster(row) for row in held_out]
    judge = functools.partial(rewards, rows=held_out, task=task, arguments=arguments)
    start = np.array(judge(arguments.model))
    runs: dict[str, dict[str, list]] = {method: {} for method in METHODS}
    last: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    for i, seed in enumerate(arguments.seeds):
        for method in METHODS[:: 1 if i % 2 == 0 else -1]:
            config = settings_of(method, tuned[method]["chosen"], seed, files, arguments)
            folder = trained(f"{method}-{seed}", config, arguments.work, files)
            runs[method][str(seed)] = points = curve(folder)
            last[method].append(np.array(once(folder / "rewards.json", judge, folder / "actor_latest")))
            print(
                f"  {method} seed {seed}: reward {points[0]['reward']:.4f} → {points[-1]['reward']:.4f} in "
                f"{points[-1]['seconds']:.1f} s",
                flush=True,
            )
    gains = {method: np.stack(last[method]) - start for method in METHODS}
    gain = {
        method: {"mean": float(gains[method].mean()), "interval": interval(gains[method], prompts)}
        for method in METHODS
    }
    found = {
        "machine": machine(trl),
        "model": Path(arguments.model).name,
        "data": {"train": arguments.train.name, "val": arguments.val.name},
        "rows": {
            **{name: len(part) for name, part in rows.items()},
            "val_prompts": len(set(prompts)),
        },
        "dtype": str(resolve_dtype(arguments.dtype)).removeprefix("torch."),
        "settings": {name: getattr(arguments, name) for name in SETTINGS},
        "learning_rate": tuned,
        "start_reward": float(start.mean()),
        "runs": runs,
        "gain": gain,
        "comparison": compare(runs, gain["grpo"]),
    }
    show(found)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    plot(found, arguments.out.with_suffix(".png"))
    print(f"wrote {arguments.out} and {arguments.out.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
