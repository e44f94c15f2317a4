"""The start that benchmarks/exact.py and rewards.py ask for: a model that has just learnt to keep to the format.

    python benchmarks/start.py --model models/smollm2-135m-instruct --train ratings_train.parquet \\
        --val ratings_test.parquet --out runs/start

Trains by method sft for `--steps` steps, asks `--rows` held-out rows after each, and leaves at OUT/start a link to the
first checkpoint of whose answers at least `--parsed` can be read. The less it has learnt beside that, the more is left
to compare.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from exact_runs import task_of
from methods_rows import write_lines

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import train_local
from rm_gallery.core.train.log import read_log


def first_that_parses(records: list[dict], least: float) -> dict | None:
    """The earliest held-out record behind a step with that parse rate."""
    held_out = sorted((r for r in records if r["split"] == "val" and r["step"]), key=lambda r: r["step"])
    return next((record for record in held_out if record["parse_rate"] >= least), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of a language model")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", default="pointwise")
    parser.add_argument("--dimensions", nargs="+", help="labels of the rows to be scored, in place of --task")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--parsed", type=float, default=0.9)
    parser.add_argument("--rows", type=int, default=100, help="held-out rows that are asked")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--micro-batch-size", type=int, help="prompts a pass; memory only")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-prompt-length", type=int, default=1024)
    parser.add_argument("--max-response-length", type=int, default=16)
    parser.add_argument("--eval-batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    asked = given.out / "asked.jsonl"
    write_lines(asked, load_rows(given.val, given.rows))
    config = check_config(
        {
            **task_of(given),
            "method": "sft",
            "model": {"path": given.model, "dtype": given.dtype},
            "data": {
                "train": str(given.train),
                "val": str(asked),
                "max_prompt_length": given.max_prompt_length,
            },
            "train": {
                "batch_size": given.batch_size,
                "mini_batch_size": given.batch_size,
                "micro_batch_size": given.micro_batch_size,
                "max_steps": given.steps,
                "learning_rate": given.learning_rate,
                "eval_every": 1,
                "save_every": 1,
                "keep_checkpoints": None,
            },
            "rollout": {
                "max_response_length": given.max_response_length,
                "eval_batch_size": given.eval_batch_size,
            },
        }
    )
    shutil.rmtree(given.out / "sft", ignore_errors=True)
    run = train_local(config, path=given.out / "sft", describe="a start").run
    found = first_that_parses(list(read_log(run.path / "metrics.jsonl")), given.parsed)
    if found is None:
        raise SystemExit(
            f"after {given.steps} steps fewer than {given.parsed:.0%} of the answers can be read"
        )
    link = given.out / "start"
    link.unlink(missing_ok=True)
    link.symlink_to((run.path / f"checkpoint-{found['step']}").resolve())
    print(
        f"{link}: after step {found['step']}, {found['parse_rate']:.0%} of {given.rows} answers can be read, reward "
        f"{found['reward/mean']:.3f}"
    )


if __name__ == "__main__":
    main()
