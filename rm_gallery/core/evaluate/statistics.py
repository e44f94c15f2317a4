"""Intervals and differences by the percentile bootstrap, resampling prompts (Efron & Tibshirani 1993, ch. 13).

Rows that share a prompt are not independent, so prompts are drawn, not rows, and every row of a drawn prompt
comes with it. Two systems on the same rows are compared on the same draws, which cancels what is common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rm_gallery.core.evaluate.metrics import (
    Array,
    cluster_sums,
    metric_names,
    metric_values,
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
    """`predictions - reference` for every metric, with the 95% interval of the paired difference.

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
    nan = float("nan")
    if math.isnan(value):
        return Estimate(nan, nan, nan, n, undefined_reason(name))
    if prompts < 2:
        return Estimate(value, nan, nan, n, "no interval: every row belongs to one prompt")
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < 0.95 * len(drawn):
        missing = len(drawn) - len(defined)
        return Estimate(value, nan, nan, n, f"no interval: undefined in {missing} of {len(drawn)} resamples")
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)
