"""Many clients of `rmg serve` at once, beside `rmg eval` on the same rows, and short prompts beside one at a time.

    rmg data convert --config examples/train/pointwise/data_config.yaml
    python benchmarks/serve.py --model MODEL --data FILE_test.parquet [--threads 2] [--clients 64] [--seconds 60]

First `rmg eval` judges the first `--limit` rows. Then the clients, each with a connection of its own, ask the service
about these rows, one row a request and the next when the answer is there, for `--seconds`; the requests under way
then are waited for, and count. The service's rate is shown as a share of `rmg eval`'s (both without loading the
model), and the largest difference of a probability between the two. Rows are of unlike length and the service gets as
far as it gets, so the share is that of prompt tokens a second; that of rows stands beside it. Last, questions of less
than 64 tokens (rubric, query and response), by one client and by all, in both modes. Model, service and clients share
the machine's cores. Results go to benchmarks/results/serve.json; the status is 1 where a request failed or was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from serve_clients import RMG, Load, bodies_of, environment, service

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import Sample, conversation
from rm_gallery.core.evaluate.result import read_result
from rm_gallery.core.tasks import PointwiseTask

RESULTS = Path(__file__).resolve().parent / "results" / "serve.json"
SHORT = 64
"""Tokens of a short question, rubric included, are fewer."""


# -- what is asked


def items_of(rows: Sequence[dict]) -> list[dict]:
    return [
        {
            "messages": [turn.to_dict() for turn in conversation(row)],
            "response": Sample.from_row(row).response,
        }
        for row in rows
    ]


def prompt_tokens(model: str, rows: Sequence[dict]) -> list[int]:
    """How many tokens the judge is given for each row."""
    from rm_gallery.core.judge import LocalJudge
    from rm_gallery.core.models.weights import load_tokenizer

    task = PointwiseTask()
    asked = [task.messages(row) for row in rows]
    return [len(prompt) for prompt in LocalJudge(None, load_tokenizer(model)).encode(asked)]


def short_items(model: str, count: int) -> tuple[list[dict], dict[str, int]]:
    """Sums and their answers, and how many tokens the longest question has, without and with the chat template."""
    from rm_gallery.core.models.weights import load_tokenizer

    items = [{"query": f"{i} + {i % 7}?", "response": f"{i + i % 7}"} for i in range(count)]
    tokenizer, task = load_tokenizer(model), PointwiseTask()
    rows = [{"input": item["query"], "output": {"content": item["response"]}} for item in items]
    asked = [task.messages(row) for row in rows]
    texts = tokenizer([messages[0]["content"] for messages in asked], add_special_tokens=False)["input_ids"]
    lengths = {
        "text": max(map(len, texts)),
        "with_chat_template": max(prompt_tokens(model, rows)),
    }
    if lengths["text"] >= SHORT:
        print(
            f"note: with this tokenizer the short questions have up to {lengths['text']} tokens, not {SHORT}"
        )
    return items, lengths


# -- the three measurements


def evaluation(arguments: argparse.Namespace, folder: Path) -> tuple[dict, list]:
    """`rmg eval` on the rows, and what it found of each."""
    command = [
        str(RMG),
        "eval",
        "--model",
        arguments.model,
        "--data",
        str(arguments.data),
        "--task",
        "pointwise",
    ]
    command += ["--mode", arguments.mode, "--dtype", arguments.dtype, "--out", str(folder), "--json"]
    if arguments.limit:
        command += ["--limit", str(arguments.limit)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment(arguments.threads))
    result = read_result(folder)
    found, seconds = result.predictions, float(result.made["judging_seconds"])
    return {
        "rows": len(found),
        "seconds": seconds,
        "per_second": round(len(found) / max(seconds, 0.1), 2),
        "without_a_verdict": sum(bool(problem) for problem in found.problem),
    }, list(zip(found.predicted, found.probabilities, strict=True))


def compare(there: Sequence[tuple], here: dict[int, dict]) -> dict:
    """The service's answers beside those of `rmg eval`."""
    largest, other = 0.0, 0
    for number, result in here.items():
        verdict, probabilities = there[number]
        other += verdict != result["verdict"]
        if probabilities and result["probabilities"]:
            pairs = zip(probabilities, result["probabilities"].values(), strict=True)
            largest = max(largest, *(abs(p - q) for p, q in pairs))
    return {"compared": len(here), "other_verdicts": other, "largest_difference": largest}


def short(address: str, arguments: argparse.Namespace, items: Sequence[dict], mode: str) -> dict:
    bodies = bodies_of(items, mode)
    one = Load(address, bodies, 1, arguments.short_seconds).report()
    many = Load(address, bodies, arguments.clients, arguments.short_seconds).report()
    return {"one_at_a_time": one, "together": many, "times": round(many["per_second"] / one["per_second"], 2)}


def show(found: dict) -> None:
    print(f"\n{'':28}{'per second':>12}{'p50 s':>9}{'p99 s':>9}{'errors':>8}")

    def line(name: str, entry: dict) -> None:
        p50, p99 = ("" if entry.get(key) is None else f"{entry[key]:.3f}" for key in ("p50_s", "p99_s"))
        print(f"{name:28}{entry['per_second']:>12.2f}{p50:>9}{p99:>9}{entry.get('errors', ''):>8}")

    line("rmg eval", found["eval"])
    line(f"{found['clients']} clients", found["service"])
    same = found["same_as_eval"]
    print(
        f"{found['share_of_eval']:.0%} of rmg eval's rate in tokens ({found['share_of_eval_in_rows']:.0%} in rows); "
        f"{found['service']['lost']} requests lost; {same['compared']} rows compared, {same['other_verdicts']} "
        f"other verdicts, largest difference of a probability {same['largest_difference']:.1e}"
    )
    for mode, entry in found["short"].items():
        line(f"short, {mode}, one at a time", entry["one_at_a_time"])
        line(f"short, {mode}, {found['clients']} clients", entry["together"])
        print(f"{entry['times']:.1f} times one at a time")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--data", type=Path, required=True, help="rated responses, as rmg data convert writes them"
    )
    parser.add_argument("--limit", type=int, default=256, help="rows")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--short-seconds", type=float, default=20, help="of each measurement of short prompts"
    )
    parser.add_argument("--mode", default="expected")
    parser.add_argument("--short-modes", nargs="+", default=["expected", "greedy"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the model")
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    rows = load_rows(arguments.data, arguments.limit)
    items, tokens = items_of(rows), prompt_tokens(arguments.model, rows)
    with tempfile.TemporaryDirectory() as folder:
        evaluated, known = evaluation(arguments, Path(folder))
    few, lengths = short_items(arguments.model, 4096)
    options = ["--task", "pointwise", "--dtype", arguments.dtype, "--max-batch", str(arguments.max_batch)]
    with service(arguments.model, options, arguments.threads) as address:
        load = Load(address, bodies_of(items, arguments.mode), arguments.clients, arguments.seconds)
        shorts = {mode: short(address, arguments, few, mode) for mode in arguments.short_modes}
    served = load.report()
    evaluated["tokens_per_second"] = round(sum(tokens) / max(evaluated["seconds"], 0.1), 1)
    served["tokens_per_second"] = round(sum(tokens[i] for i in load.numbers_done) / load.seconds, 1)
    found = {
        "machine": {
            "cpus": os.cpu_count(),
            "threads": arguments.threads,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "model": Path(arguments.model).name,
        "data": arguments.data.name,
        "mode": arguments.mode,
        "dtype": arguments.dtype,
        "max_batch": arguments.max_batch,
        "clients": arguments.clients,
        "eval": evaluated,
        "service": served,
        "share_of_eval": round(served["tokens_per_second"] / evaluated["tokens_per_second"], 3),
        "share_of_eval_in_rows": round(served["per_second"] / evaluated["per_second"], 3),
        "same_as_eval": compare(known, load.results),
        "short_tokens": lengths,
        "short": shorts,
    }
    show(found)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"wrote {arguments.out}")
    loads = [served, *(entry[name] for entry in shorts.values() for name in ("one_at_a_time", "together"))]
    return int(any(entry["errors"] or entry["lost"] for entry in loads))


if __name__ == "__main__":
    sys.exit(main())
