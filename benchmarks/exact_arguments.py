"""The options of benchmarks/exact.py."""

from __future__ import annotations

import argparse
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "exact.json"


def parsed(about: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
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
    parser.add_argument("--instruction", help="replaces the task's own")
    parser.add_argument("--reward", default="auto", help="of single verdicts, which both are compared by")
    parser.add_argument(
        "--exact-reward", help="what exact is trained by, where it is a scoring rule; judged at its end alone"
    )
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
