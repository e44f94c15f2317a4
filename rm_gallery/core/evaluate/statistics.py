"""Intervals and differences by the percentile bootstrap, resampling prompts (Efron & Tibshirani 1993, ch. 13).

Rows that share a prompt are not independent, so prompts are drawn, not rows, and every row of a drawn prompt
comes with it. Two systems on the same rows are compared on the same draws, which cancels what is common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.agreement import Array
from rm_gallery.core.evaluate.metrics import (
    cluster_sums,
    metric_names,
    metric_values,
    no_interval,
    undefined_reason,
)
from rm_gallery.core.evaluate.predictions import Predictions

RESAMPLES = 2000
_BLOCK = 4_000_000  # weights in memory at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval.

    Attributes:
        value: the figure on the rows themselves, a fraction where it is a share; NaN where undefined.
        low, high: the 2.5th and 97.5th percentile of the resamples; NaN where there is no interval.
        n: the rows (or groups) that the value is over.
        reason: why something is NaN, else None.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str | None = None

    def to_dict(self) -> dict[str, float | int | str | None]:
        """`{"value", "low", "high", "n"}`, NaN as None, and `"reason"` where there is one."""
        fields: dict[str, float | int | str | None] = {
            name: None if math.isnan(getattr(self, name)) else getattr(self, name)
            for name in ("value", "low", "high")
        }
        return {**fields, "n": self.n, **({"reason": self.reason} if self.reason else {})}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Estimate:
        """What `to_dict` gave."""
        value, low, high = (
            math.nan if found[k] is None else float(found[k]) for k in ("value", "low", "high")
        )
        return cls(value, low, high, int(found["n"]), found.get("reason"))


def estimates(predictions: Predictions, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Every metric with its 95% interval, all from the same resamples of the prompts."""
    sums = cluster_sums(predictions)
    point = metric_values(predictions, sums.sum(axis=0, keepdims=True))
    drawn = _replicates(predictions, sums, resamples, seed)
    return {
        name: _estimate(name, float(value[0]), drawn[name], int(n[0]), len(sums))
        for name, (value, n) in point.items()
    }


def paired_differences(
    predictions: Predictions, reference: Predictions, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """`predictions - reference` for every metric that both have, with the 95% interval of the paired difference.

    Raises:
        DataError: the two do not hold the same rows.
    """
    reference = reference.aligned_to(predictions)
    ours, theirs = cluster_sums(predictions), cluster_sums(reference)
    our_point = metric_values(predictions, ours.sum(axis=0, keepdims=True))
    their_point = metric_values(reference, theirs.sum(axis=0, keepdims=True))
    our_draws = _replicates(predictions, ours, resamples, seed)
    their_draws = _replicates(reference, theirs, resamples, seed)
    return {
        name: _estimate(
            name,
            float(value[0] - their_point[name][0][0]),
            our_draws[name] - their_draws[name],
            int(n[0]),
            len(ours),
        )
        for name, (value, n) in our_point.items()
        if name in their_point
    }


def paired_difference(
    predictions: Predictions,
    reference: Predictions,
    metric: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """`paired_differences` of one metric, by its name in `metric_names`."""
    return paired_differences(predictions, reference, resamples=resamples, seed=seed)[metric]


def resample_sums(sums: Array, resamples: int, seed: int) -> Array:
    """Sums of `resamples` draws of the prompts with replacement: (C, K) → (resamples, K).

    The draws depend only on C, the number of resamples and the seed, so two systems on the same prompts are
    resampled alike.
    """
    count = len(sums)
    rng = np.random.default_rng(seed)
    blocks = []
    step = max(1, _BLOCK // max(count, 1))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        picks = rng.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(picks.ravel(), minlength=size * count).reshape(size, count)
        blocks.append(weights.astype(np.float64) @ sums)
    return np.concatenate(blocks)


def _replicates(predictions: Predictions, sums: Array, resamples: int, seed: int) -> dict[str, Array]:
    if len(sums) < 2:  # resampling one prompt gives itself: a width of 0 that means nothing
        return {name: np.array([np.nan]) for name in metric_names(predictions)}
    values = metric_values(predictions, resample_sums(sums, resamples, seed))
    return {name: value for name, (value, _) in values.items()}


def _estimate(name: str, value: float, drawn: Array, n: int, prompts: int) -> Estimate:
    if (reason := no_interval(name)) and not math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, reason)
    return with_interval(value, drawn, n, prompts, undefined_reason(name))


def with_interval(value: float, drawn: Array, n: int, prompts: int, undefined: str) -> Estimate:
    """A figure with the percentiles of its replicates.

    Args:
        value: on the rows themselves.
        drawn: (B,) the same of each resample.
        n: what the value is over.
        prompts: how many prompts were resampled.
        undefined: the reason where the value is NaN.
    """
    nan = float("nan")
    if math.isnan(value):
        return Estimate(nan, nan, nan, n, undefined)
    if prompts < 2:
        return Estimate(value, nan, nan, n, "no interval: every row belongs to one prompt")
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < 0.95 * len(drawn):
        missing = len(drawn) - len(defined)
        return Estimate(value, nan, nan, n, f"no interval: undefined in {missing} of {len(drawn)} resamples")
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)


@dataclass(frozen=True)
class McNemar:
    """How often only one of two systems is right, and how surprising that is where both are equally good.

    Attributes:
        only_first, only_second: the number of rows where only that one is right.
        p: two-sided and exact.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Sequence[float] | Array, second: Sequence[float] | Array) -> McNemar:
    """McNemar's exact test (1947) of two systems' 0 and 1 on the same rows; rows with a NaN are left out.

    Rows count as independent. Where several share a prompt, p is too small, and the interval of the paired difference
    is what holds.

    Raises:
        DataError: the lengths differ, or something else than 0 and 1 stands there.
    """
    a, b = (np.asarray(side, dtype=np.float64) for side in (first, second))
    if a.shape != b.shape:
        raise DataError(f"McNemar's test needs the same rows judged twice, not {len(a)} and {len(b)}")
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[both], b[both]
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise DataError(
            "McNemar's test compares what is right or wrong in each row: 1 or 0, and nothing between"
        )
    only_first, only_second = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    total = only_first + only_second
    # the binomial tail in whole numbers: exact at any size
    tail = term = 1
    for k in range(min(only_first, only_second)):
        term = term * (total - k) // (k + 1)
        tail += term
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**total))


def paired_mcnemar(predictions: Predictions, reference: Predictions) -> McNemar:
    """`mcnemar` of exact correctness, an invalid output being wrong.

    Raises:
        DataError: the two do not hold the same rows.
    """
    return mcnemar(_right(predictions), _right(reference.aligned_to(predictions)))


def _right(predictions: Predictions) -> list[float]:
    return [float(t == p) for t, p in zip(predictions.truth, predictions.predicted, strict=True)]
