"""Results, logs and folders for the tests of the report, with text that wants to be markup."""

from __future__ import annotations

import json

import numpy as np

from rm_gallery.core.data.samples import Message
from rm_gallery.core.evaluate import score_outputs
from rm_gallery.core.evaluate.benchmarks import Comparison, Item, get_benchmark
from rm_gallery.core.evaluate.benchmarks.answers import write_answers
from rm_gallery.core.evaluate.benchmarks.ask import judged, questions
from rm_gallery.core.evaluate.build import build_benchmark_result, build_result
from rm_gallery.core.evaluate.curve import CURVE
from rm_gallery.core.evaluate.result import write_result
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask

from .helpers import pair_row, sample_row

EVIL = "<script>alert('x')</script>"


def scores_result(seed, model="m", rows=40, text=EVIL, good=0.0):
    rng = np.random.default_rng(seed)
    data = [sample_row(i, i % 5, f"{EVIL} question {i}", f"{EVIL} answer {i}") for i in range(rows)]
    given = [i % 5 if rng.random() < good else rng.integers(0, 5) for i in range(rows)]
    texts = [text if i % 7 == 0 else f"<score>{given[i]}</score>{EVIL}" for i in range(rows)]
    predictions = score_outputs(PointwiseTask(), data, texts)
    return build_result(PointwiseTask(), predictions, data, benchmark=f"b{EVIL}", model=model)


def log(steps=30):
    train = [
        {
            "step": s,
            "split": "train",
            "reward/mean": s / 50,
            "accuracy": 0.3,
            "timing_s/step": 1.5,
            "kl_loss": 0.01,
        }
        for s in range(1, steps + 1)
    ]
    return (
        *train,
        {"step": 10, "split": "val", "reward/mean": 0.2},
        {"step": 20, "split": "val", "mae": 1.0},
    )


def styled_items(count=6):
    """Items of RM-Bench: three styles of a right answer against three of a wrong one."""
    compared = tuple(Comparison(i, 3 + j, "A") for i in range(3) for j in range(3))
    return [
        Item(
            f"chat/{k}",
            f"prompt {k}",
            (Message("user", f"{EVIL} question {k}"),),
            tuple(f"{EVIL} {side} {k} in style {i}" for side in ("right", "wrong") for i in range(3)),
            compared,
            {"domain": "chat", "subset": "chat"},
        )
        for k in range(count)
    ]


def on_benchmark(folder, name, answer, task=None, benchmark="rm_bench", items=None):
    """Judge a benchmark's items and write the folder that `rmg eval` leaves; `answer` is given each question."""
    items = items or styled_items()
    asked = questions(items, 1 if task is None else task.responses)
    answers = [answer(question) for question in asked.asked]
    kind = "scalar" if task is None else "pairwise" if task.responses == 2 else "pointwise"
    result = build_benchmark_result(
        get_benchmark(benchmark), items, judged(items, asked, answers, task), model=name, mode="x", kind=kind
    )
    (folder / name).mkdir(parents=True)
    write_answers(folder / name / "predictions.parquet", items, asked, answers, task)
    write_result(folder / name, result)
    return folder / name


def by_style(question):
    """A scalar model that likes the richer style, and substance a little; one answer is missing."""
    if question.key == "chat/0#2":
        return Answer(problem="overlong: 9000 tokens")
    return Answer(score=question.index % 3 + (0.5 if question.index < 3 else 0.0))


def says_a(question):
    """A judge that prefers what stands first, with a distribution."""
    return Answer("A", EVIL, probabilities=(0.6, 0.3, 0.1), mass=0.9)


def pairs_result():
    rows = [
        pair_row(i, "A" if i % 2 else "B", f"q {i // 2}", *(("x", "y") if i % 2 else ("y", "x")))
        for i in range(20)
    ]
    predictions = score_outputs(PairwiseTask(), rows, ["<preference>A</preference>"] * 20)
    return build_result(PairwiseTask(), predictions, rows, benchmark="pairs", model="m")


def write_folders(folder):
    """One of everything: two judges of rows, three kinds of judges on a benchmark, a run with a curve."""
    write_result(folder / "before", scores_result(0))
    write_result(folder / "after", scores_result(1, good=0.9))
    on_benchmark(folder, "scalar", by_style)
    on_benchmark(folder, "compares", says_a, PairwiseTask())
    on_benchmark(folder, "rates", lambda q: Answer(q.index), PointwiseTask())
    run = folder / "run"
    for step, good in ((0, 0.0), (10, 0.5), (20, 0.9)):
        write_result(run / "eval" / "mine-greedy" / f"step-{step}", scores_result(step, good=good))
    points = []
    for step in (0, 10, 20):
        details = json.loads((run / f"eval/mine-greedy/step-{step}/summary.json").read_text())
        points.append(
            {"step": step, **{k: details[k] for k in ("benchmark", "mode", "n", "headline", "metrics")}}
        )
    (run / "eval" / "mine-greedy" / CURVE).write_text(json.dumps(points))
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log()))
    return folder
