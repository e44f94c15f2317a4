"""From many results to few: a sum over graders, a mean over items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.statistics import RESAMPLES, Estimate, resample_sums, with_interval
from rm_gallery.core.graders import GraderError, GraderResult, GraderScore


class Part(NamedTuple):
    """A grader's result for an item, and its weight."""

    result: GraderResult
    weight: float


Aggregator = Callable[[str, Mapping[str, Part]], GraderResult]
"""(its name, the item's parts by grader) → its result."""


def weighted_sum(name: str, parts: Mapping[str, Part]) -> GraderResult:
    """Σ weight · score over an item's graders; where one of weight other than 0 gave no score, an error that names it.

    An aggregator: `GradingRunner(…, aggregators={"overall": weighted_sum})`.
    """
    total, missing = 0.0, []
    for grader, (result, weight) in parts.items():
        if not weight:
            continue
        if isinstance(result, GraderScore):
            total += weight * result.score
        else:
            why = result.error if isinstance(result, GraderError) else "it ranks, and gives no score"
            missing.append(f"{grader}: {why}")
    if missing:
        return GraderError(name, f"no sum, because a part is missing: {'; '.join(missing)}", {"kind": "part"})
    if not math.isfinite(total):
        return GraderError(name, f"the sum is {total}", {"kind": "part"})
    terms = " + ".join(f"{weight:g} · {grader}" for grader, (_, weight) in parts.items() if weight)
    return GraderScore(name, total, f"the sum {terms or 'of nothing'}")


def scores(results: Sequence[GraderResult]) -> NDArray[np.float64]:
    """The scores, aligned with the results; NaN where there is none."""
    return np.array([r.score if isinstance(r, GraderScore) else math.nan for r in results], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Summary:
    """A grader over a dataset.

    Attributes:
        n: results.
        scored: those with a score.
        mean: of the scores, with the 95% interval; NaN with its reason where there is none.
        errors: cause → how many, the most frequent first. A mean over a part of the items is no mean of all: read it
            beside them.
    """

    n: int
    scored: int
    mean: Estimate
    errors: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"n": self.n, "scored": self.scored, "mean": self.mean.to_dict(), "errors": dict(self.errors)}


def summarize(
    results: Mapping[str, Sequence[GraderResult]],
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Summary]:
    """What each grader (or aggregator) says of the dataset.

    Args:
        results: as `GradingRunner.arun` gives them.
        clusters: of each item, what it shares with others: its prompt. Whole clusters are resampled. None: every item
            stands by itself.

    Raises:
        DataError: there are not as many clusters as results.
    """
    return {name: _summary(found, clusters, resamples, seed) for name, found in results.items()}


def _summary(
    results: Sequence[GraderResult], clusters: Sequence[Hashable] | None, resamples: int, seed: int
) -> Summary:
    if clusters is not None and len(clusters) != len(results):
        raise DataError(
            f"there are {len(clusters)} clusters and {len(results)} results; expected one for each"
        )
    values = scores(results)
    known = ~np.isnan(values)
    numbers: dict[Hashable, int] = {}
    of = [numbers.setdefault(c, len(numbers)) for c in (range(len(values)) if clusters is None else clusters)]
    sums = np.zeros((len(numbers), 2))
    np.add.at(
        sums, np.array(of, dtype=np.intp)[known], np.stack([values[known], np.ones(known.sum())], axis=1)
    )
    sums = sums[sums[:, 1] > 0]
    causes = Counter(
        result.kind or "unknown" for result in results if isinstance(result, GraderError)
    ).most_common()
    scored = int(known.sum())
    return Summary(
        len(results), scored, _mean(sums, scored, len(results), causes, resamples, seed), dict(causes)
    )


def _mean(
    sums: NDArray[np.float64], scored: int, n: int, causes: list[tuple[str, int]], resamples: int, seed: int
) -> Estimate:
    if not n:
        why = "there are no results"
    elif causes:
        why = f"no item has a score: {', '.join(f'{count} {kind}' for kind, count in causes)}"
    else:
        why = "no item has a score: the grader ranks"
    if not scored:
        return with_interval(math.nan, np.array([math.nan]), 0, 0, why)
    total, count = sums.sum(axis=0)
    drawn = np.array([math.nan])
    if len(sums) > 1:
        replicates = resample_sums(sums, resamples, seed)
        drawn = replicates[:, 0] / replicates[:, 1]
    return with_interval(float(total / count), drawn, scored, len(sums), why)
