"""From answers to an `EvalResult`: the judge's figures, the trivial predictors on the same rows, all with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rm_gallery.core.data.samples import Row
from rm_gallery.core.evaluate.baselines import compute_baselines
from rm_gallery.core.evaluate.benchmarks.base import Benchmark, Item, Judged
from rm_gallery.core.evaluate.benchmarks.baselines import benchmark_baselines
from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.result import REWARD, BaselineResult, EvalResult, Kind
from rm_gallery.core.evaluate.shares import share_differences, share_estimates
from rm_gallery.core.evaluate.statistics import estimates, paired_difference
from rm_gallery.core.tasks import Task

_UNVERIFIED = (
    "The reading of {} follows its publisher's loader and was not tried on the publisher's own file."
)


def build_result(
    task: Task[Any],
    predictions: Predictions,
    rows: Sequence[Row],
    *,
    benchmark: str,
    model: str,
    mode: str = "greedy",
    train: Sequence[Row] | None = None,
    seed: int = 0,
    notes: Sequence[str] = (),
    made: Mapping[str, Any] | None = None,
) -> EvalResult:
    """The result on labelled rows.

    Args:
        rows: the evaluated rows, in the order of `predictions`.
        train: labelled rows for fitting the baselines; without them each says what it was fitted on.
        seed: of the resampling.
    """
    baselines = []
    for found in compute_baselines(task, rows, train):
        metrics = difference = None
        if found.predictions is not None:
            metrics = estimates(found.predictions, seed=seed)
            difference = paired_difference(predictions, found.predictions, REWARD, seed=seed)
        baselines.append(BaselineResult(found.name, found.rule, found.note, metrics, difference))
    prompts = set(predictions.cluster)
    shared = len(prompts & {task.cluster(row) for row in train or ()})
    warning = [f"{shared} of the evaluated prompts also stand in the training rows."] if shared else []
    return EvalResult(
        benchmark=benchmark,
        model=model,
        mode=mode,
        kind=predictions.kind,
        n=len(predictions),
        prompts=len(prompts),
        headline=REWARD,
        metrics=estimates(predictions, seed=seed),
        baselines=tuple(baselines),
        predictions=predictions,
        notes=(*notes, *warning),
        made=made or {},
    )


def build_benchmark_result(
    benchmark: Benchmark,
    items: Sequence[Item],
    judged: Sequence[Judged],
    *,
    model: str,
    mode: str,
    kind: Kind,
    name: str = "",
    seed: int = 0,
    notes: Sequence[str] = (),
    made: Mapping[str, Any] | None = None,
) -> EvalResult:
    """The result on a benchmark's items; the baselines pass through the same aggregation.

    Args:
        judged: one an item, in order.
        kind: what the judge was asked for.
        name: of the result, where it is not the benchmark's.
        seed: of the resampling.
    """
    shares = benchmark.aggregate(items, judged)
    baselines = []
    for trivial, (rule, theirs) in benchmark_baselines(items).items():
        other = benchmark.aggregate(items, theirs)
        difference = share_differences(shares, other, seed=seed).get(shares.headline)
        baselines.append(BaselineResult(trivial, rule, "", share_estimates(other, seed=seed), difference))
    return EvalResult(
        benchmark=name or benchmark.name,
        model=model,
        mode=mode,
        kind=kind,
        n=len(items),
        prompts=len(set(shares.cluster)),
        headline=shares.headline,
        metrics=share_estimates(shares, seed=seed),
        baselines=tuple(baselines),
        shares=shares,
        notes=(*notes, *shares.notes, *([] if benchmark.verified else [_UNVERIFIED.format(benchmark.name)])),
        made={"source": benchmark.source, **(made or {})},
    )
