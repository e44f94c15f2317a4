"""Verdicts per second of a local judge's three modes, beside transformers' own `generate`.

    rmg data convert --config examples/train/pointwise/data_config.yaml
    python benchmarks/judge.py --model MODEL --data FILE_test.parquet [--limit 64] [--dtype bfloat16]
    python benchmarks/judge.py --table

`expected`, `greedy` and `vote@8` are `LocalJudge`'s. `generate` gets its best: weights in the dtype of the computation,
KV cache, batches of like lengths, the batch size that is fastest on a part of the rows, and each batch stops when all
of its answers have closed the verdict's tag. Runs are interleaved, medians are shown. Tokens per second count the
tokens of the questions: padding does not count, and what is shared counts for each question that has it.

`expected`'s share of the machine's peak is its unavoidable operations over its seconds, by a matrix product in the same
dtype; what the rest goes to is told by PyTorch's profiler, operator by operator.

Then the rows' responses to one prompt as pairs: the seconds of both orders beside those predicted from one order's
seconds and the tokens that either has to encode. Results go to benchmarks/results/judge.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path

import torch
from judge_generate import ANSWER, Plain, timed
from machine import machine, product_rate

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.read import read
from rm_gallery.core.models import forest
from rm_gallery.core.models.weights import quiet_transformers, resolve_dtype
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask

RESULTS = Path(__file__).resolve().parent / "results" / "judge.json"
MODES = ("expected", "greedy", "vote@8", "generate")
SIDE = 4096
"""Of the square matrices whose product is the machine's peak."""


def encoded(judge: LocalJudge, task, prompts) -> dict[str, float]:
    """What mode `expected` computes for these prompts: tokens, and floating-point operations."""
    ordered, tree = sorted(set(prompts)), judge.verdict_tree(task)
    parts = forest.batches(ordered, tree, judge.batch_tokens)
    rooted = forest.root(ordered) if len(parts) > 1 else 0
    planted = [forest.plant([ordered[i] for i in part], tree, rooted=rooted) for part in parts]
    tokens = rooted + sum(len(each.ids) for each in planted)
    model = judge.model
    config = model.config.get_text_config()
    head = model.get_output_embeddings().weight.numel()
    weights = sum(p.numel() for p in model.base_model.layers.parameters() if p.dim() > 1)
    width = config.num_attention_heads * getattr(
        config, "head_dim", config.hidden_size // config.num_attention_heads
    )
    # a token sees as many as stand before it in its own text, and itself
    seen = rooted * (rooted + 1) / 2 + sum(int((each.positions + 1).sum()) for each in planted)
    operations = (
        2 * weights * tokens
        + 2 * head * len(ordered) * (1 + len(tree.tokens))
        + 4 * width * config.num_hidden_layers * seen
    )
    return {"tokens": tokens, "verdict_tokens": len(ordered) * len(tree.tokens), "operations": operations}


def operators(judge: LocalJudge, task, conversations: list, most: int = 15) -> dict[str, float]:
    """Shares of the seconds of `expected` by PyTorch's operators, the largest first; those of the rest together."""
    gpu = judge.model.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity.CUDA if gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profile:
        judge.answer(task, conversations, mode="expected", max_new_tokens=ANSWER)
    times = {
        event.key: event.self_device_time_total if gpu else event.self_cpu_time_total
        for event in profile.key_averages()
    }
    ordered = sorted(times.items(), key=lambda item: -item[1])
    found = {name: time / sum(times.values()) for name, time in ordered[:most]}
    return {**found, "the rest": 1 - sum(found.values())}


def fitting(judge: LocalJudge, conversations: list) -> list:
    """Those that the model has room for: the others cost nothing, and would count as answered."""
    room = judge.context or float("inf")
    prompts = judge.encode(conversations)
    return [c for c, prompt in zip(conversations, prompts, strict=True) if len(prompt) + ANSWER <= room]


def modes(judge: LocalJudge, plain: Plain | None, rows, arguments) -> dict:
    """Each mode and `generate` on the same questions, interleaved."""
    task = PointwiseTask()
    conversations = fitting(judge, [task.messages(row) for row in rows])
    prompts = judge.encode(conversations)
    tag = task.format(task.verdicts()[0]).rpartition("<")[2]
    tried, best = {}, None
    if plain is not None:
        spread = sorted(prompts, key=len)[:: max(1, len(prompts) // arguments.tune)]
        tried = plain.fastest(spread, arguments.batch_sizes, f"<{tag}")
        best = min(tried, key=tried.get)

    def ask(mode: str):
        return judge.answer(task, conversations, mode=mode, max_new_tokens=ANSWER, samples=8)

    every = {
        "expected": lambda: ask("expected"),
        "greedy": lambda: ask("greedy"),
        "vote@8": lambda: ask("vote"),
        "generate": lambda: plain.answer(prompts, best, f"<{tag}"),
    }
    runs = {name: every[name] for name in MODES if name in arguments.modes}
    for run in runs.values() if judge.model.device.type == "cuda" else ():
        run()  # its kernels are compiled
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peaks, results = [], {}
    for _ in range(arguments.repeats):
        peaks.append(product_rate(SIDE, str(judge.autocast or judge.model.dtype).removeprefix("torch.")))
        for name, run in runs.items():
            took, results[name] = timed(run)
            seconds[name].append(took)
            print(f"  {name:9}{took:9.1f} s", flush=True)
    asked, work = sum(map(len, prompts)), encoded(judge, task, prompts)
    written = None
    if "generate" in results:
        texts, written = results["generate"]
        results["generate"] = [read(task, text) for text in texts]
    table = {
        name: {
            "seconds": statistics.median(times),
            "all_seconds": times,
            "verdicts_per_second": len(prompts) / statistics.median(times),
            "tokens_per_second": asked / statistics.median(times),
            "speed_to_generate": statistics.median(seconds["generate"]) / statistics.median(times)
            if "generate" in seconds
            else None,
            "answers_with_a_verdict": sum(answer.verdict is not None for answer in results[name]),
        }
        for name, times in seconds.items()
    }
    took = table["expected"]["seconds"]
    return {
        "questions": len(prompts),
        "too_long": len(rows) - len(prompts),
        "prompt_tokens": asked,
        "rubric_tokens": forest.root(sorted(set(prompts))),
        "modes": table,
        "expected_encodes": work,
        "matrix_product_per_second": statistics.median(peaks),
        "expected_share_of_peak": work["operations"] / took / statistics.median(peaks),
        "expected_operators": operators(judge, task, conversations[: arguments.tune]),
        "generate_batch_size": best,
        "generate_seconds_tried": tried,
        "generate_tokens_written": written,
    }


def orders(judge: LocalJudge, rows, arguments) -> dict:
    """One order of each pair, and both: seconds against the tokens that have to be encoded."""
    task = PairwiseTask()
    found: dict[str, list] = {}
    for row in rows:
        found.setdefault(task.cluster(row), []).append(row)
    forward, swapped = [], []
    for same in found.values():
        for one, other in itertools.pairwise(same[:2]):
            a, b = ({"content": row["output"]["content"]} for row in (one, other))
            both = [task.messages({"input": one["input"], "output": pair}) for pair in ([a, b], [b, a])]
            if len(fitting(judge, both)) == 2:
                forward.append(both[0])
                swapped.append(both[1])
    if not forward:
        return {}
    asked = {"one order": forward, "both orders": forward + swapped}
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(arguments.repeats):
        for name, conversations in asked.items():
            took, _ = timed(
                lambda c=conversations: judge.answer(task, c, mode="expected", max_new_tokens=ANSWER)
            )
            seconds[name].append(took)
    prompts = {name: judge.encode(conversations) for name, conversations in asked.items()}
    work = {name: encoded(judge, task, p) for name, p in prompts.items()}
    one, both = (statistics.median(seconds[name]) for name in asked)
    predicted = one * work["both orders"]["tokens"] / work["one order"]["tokens"]
    return {
        "pairs": len(forward),
        "rubric_tokens": forest.root(sorted(set(prompts["both orders"]))),
        "tokens_without_sharing": {
            name: sum(map(len, p)) + work[name]["verdict_tokens"] for name, p in prompts.items()
        },
        "tokens_encoded": {name: work[name]["tokens"] for name in asked},
        "seconds": {"one order": one, "both orders": both},
        "all_seconds": seconds,
        "predicted_seconds": predicted,
        "measured_to_predicted": both / predicted,
    }


def show(found: dict) -> None:
    one, pairs = found["pointwise"], found["pairs"]
    print(
        f"\n{one['questions']} questions, {one['prompt_tokens']:,} prompt tokens, {one['rubric_tokens']} of them in all"
    )
    print(f"{'':10}{'seconds':>9}{'verdicts/s':>12}{'tokens/s':>10}{'to generate':>13}{'with a verdict':>16}")
    for name, row in one["modes"].items():
        gain = f"{row['speed_to_generate']:12.2f}x" if row["speed_to_generate"] else f"{'':13}"
        print(
            f"{name:10}{row['seconds']:9.2f}{row['verdicts_per_second']:12.2f}{row['tokens_per_second']:10,.0f}"
            f"{gain}{row['answers_with_a_verdict']:>16}"
        )
    work = one["expected_encodes"]
    print(
        f"expected encodes {work['tokens']:,} tokens, {work['verdict_tokens']:,} of them verdicts, at "
        f"{one['expected_share_of_peak']:.0%} of the peak of {one['matrix_product_per_second'] / 1e9:,.0f} GFLOP/s"
    )
    if one["generate_batch_size"]:
        print(
            f"generate in batches of {one['generate_batch_size']} writes {one['generate_tokens_written']:,} tokens"
        )
    shares = [f"{name[:40]} {share:.1%}" for name, share in one["expected_operators"].items()]
    print("its seconds by operator: " + ", ".join(shares))
    if pairs:
        print(f"\n{pairs['pairs']} pairs, {pairs['rubric_tokens']} tokens in all of their prompts")
        print(f"{'':13}{'without sharing':>17}{'encoded':>10}{'seconds':>9}{'predicted':>11}")
        for name, tokens in pairs["tokens_encoded"].items():
            predicted = f"{pairs['predicted_seconds']:11.1f}" if name == "both orders" else ""
            print(
                f"{name:13}{pairs['tokens_without_sharing'][name]:17,}{tokens:10,}"
                f"{pairs['seconds'][name]:9.1f}{predicted}"
            )
        print(f"both orders took {pairs['measured_to_predicted']:.2f} of what their tokens predict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="folder of a language model")
    parser.add_argument("--data", type=Path, help="pointwise rows (Parquet)")
    parser.add_argument("--table", action="store_true", help="only print the table of --out")
    parser.add_argument("--limit", type=int, help="rows; by default all")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=MODES, help="expected is always measured"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="of greedy; a vote's samples count each")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="of expected")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[4, 8, 16, 32], help="that generate tries"
    )
    parser.add_argument(
        "--tune", type=int, default=64, help="rows on which it tries them, and the profiler looks"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.table:
        show(json.loads(arguments.out.read_text(encoding="utf-8")))
        return
    if arguments.model is None or arguments.data is None:
        parser.error("--model and --data are needed, or --table")

    arguments.modes = {"expected", *arguments.modes}
    rows = load_rows(arguments.data, arguments.limit)
    sizes = {"batch_size": arguments.batch_size, "batch_tokens": arguments.batch_tokens}
    judge = LocalJudge.load(arguments.model, dtype=arguments.dtype, **sizes)
    compute = resolve_dtype(arguments.dtype)
    with quiet_transformers():
        plain = Plain(arguments.model, compute, judge) if "generate" in arguments.modes else None
        found = {
            "machine": machine(),
            "model": Path(arguments.model).name,
            "data": arguments.data.name,
            "dtype": str(compute).removeprefix("torch."),
            "repeats": arguments.repeats,
            **sizes,
            "pointwise": modes(judge, plain, rows, arguments),
            "pairs": orders(judge, rows, arguments),
        }
    show(found)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
