"""`EvalResult`: one judge on labelled rows or on a benchmark, its baselines beside it, and the files that hold it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.base import Shares
from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.shares import read_shares, write_shares
from rm_gallery.core.evaluate.statistics import RESAMPLES, Estimate

Kind = Literal["pointwise", "pairwise", "dimensions", "scalar"]
OUTCOMES = "outcomes.parquet"
"""Beside predictions.parquet in the folder of a benchmark's result: its `shares`."""

REWARD = "reward"
"""The figure by which judges of labelled rows are compared. A benchmark has its publisher's."""


@dataclass(frozen=True)
class BaselineResult:
    """A trivial predictor's figures on the same rows or items.

    `metrics` is None where it was not computed; `note` says why. `difference` is the judge's headline figure minus
    this one's, with the interval of the paired difference.
    """

    name: str
    rule: str
    note: str
    metrics: Mapping[str, Estimate] | None
    difference: Estimate | None


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found: on labelled rows (`predictions`), or on the items of a benchmark (`shares`).

    Attributes:
        benchmark: the benchmark's name, or the data's (the file's stem).
        model: the model, as it was named.
        mode: how verdicts were taken: `greedy`, `expected`, `vote`, `score` (a scalar model) or `recorded`.
        kind: what was asked: for a score, a preference, or of a scalar model a number.
        n: rows, or items of a benchmark.
        prompts: that differ.
        headline: the metric by which judges are compared.
        metrics: the judge's figures with intervals.
        baselines: the trivial predictors on the same rows.
        predictions: the judge's answers to labelled rows.
        shares: what each item of a benchmark adds to each figure.
        notes: sentences a reader of the figures must know.
        made: how it was made (files, seconds, versions); not deterministic, so never in metrics.json.
    """

    benchmark: str
    model: str
    mode: str
    kind: Kind
    n: int
    prompts: int
    headline: str
    metrics: Mapping[str, Estimate]
    baselines: tuple[BaselineResult, ...]
    predictions: Predictions | None = None
    shares: Shares | None = None
    notes: tuple[str, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    def baseline(self, name: str) -> BaselineResult:
        """The baseline of that name."""
        return next(found for found in self.baselines if found.name == name)

    def to_metrics_json(self) -> dict[str, Any]:
        """The content of metrics.json: fractions, NaN as None with a `reason` beside it."""
        baselines: dict[str, dict[str, Any]] = {}
        for found in self.baselines:
            if found.metrics is None:
                baselines[found.name] = {"reason": found.note}
                continue
            baselines[found.name] = {name: e.to_dict()["value"] for name, e in found.metrics.items()}
            reasons = [f"{name}: {e.reason}" for name, e in found.metrics.items() if math.isnan(e.value)]
            if reasons:
                baselines[found.name]["reason"] = "; ".join(reasons)
        return {
            "benchmark": self.benchmark,
            "model": self.model,
            "mode": self.mode,
            "n": self.n,
            "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()},
            "baselines": baselines,
        }

    def details(self) -> dict[str, Any]:
        """The content of summary.json: metrics.json with intervals for the baselines, notes and provenance."""
        return {
            **self.to_metrics_json(),
            "task": self.kind,
            "prompts": self.prompts,
            "headline": self.headline,
            "intervals": f"95%, percentile bootstrap of prompts, {RESAMPLES} resamples",
            "baselines": {
                found.name: {
                    "rule": found.rule,
                    "note": found.note,
                    "metrics": found.metrics and {name: e.to_dict() for name, e in found.metrics.items()},
                    "difference": found.difference
                    and {"metric": self.headline, **found.difference.to_dict()},
                }
                for found in self.baselines
            },
            "notes": list(self.notes),
            "made": dict(self.made),
        }


def reference(result: EvalResult) -> str:
    """The name of the baseline that a judge is compared with first: a constant, or of a benchmark the longer response."""
    return "longer" if result.shares is not None else "best_constant"


def headline(result: EvalResult, name: str | None = None) -> str:
    """One sentence: does the judge beat this baseline (by default `reference`)?"""
    found = result.baseline(name or reference(result))
    value, figure = result.metrics[result.headline], result.headline.replace("_", " ")
    if found.metrics is None or found.difference is None or result.headline not in found.metrics:
        return f"There is no comparison with the baseline {found.name}: {found.note}."
    other, diff = found.metrics[result.headline], found.difference
    what = f"Mean {figure}" if figure == REWARD else figure[:1].upper() + figure[1:]
    if math.isnan(value.value) or math.isnan(other.value):
        return f"{what} is undefined: {value.reason or other.reason}."
    start = f"{what} {value.value:.3f} against {other.value:.3f} of {found.rule}: "
    if math.isnan(diff.low):
        return f"{start}a difference of {diff.value:+.3f} ({diff.reason})."
    interval = f"{diff.value:+.3f} (95% interval {diff.low:+.3f} to {diff.high:+.3f})"
    if diff.low > 0:
        return f"{start}the judge is better by {interval}."
    if diff.high < 0:
        return f"{start}the judge is worse, by {interval}."
    return f"{start}no proven difference, {interval}."


def strongest_baseline(result: EvalResult) -> str:
    """The name of the baseline with the highest headline figure; `reference` where none exceeds it."""
    figures = {
        found.name: found.metrics[result.headline].value
        for found in result.baselines
        if found.metrics
        and result.headline in found.metrics
        # a baseline that scores can have other figures than a judge that compares
        and not math.isnan(found.metrics[result.headline].value)
    }
    first = reference(result)
    best = max(figures, key=lambda name: figures[name], default=first)
    return best if figures.get(best, -math.inf) > figures.get(first, -math.inf) else first


def write_result(folder: str | Path, result: EvalResult) -> None:
    """Write predictions.parquet or outcomes.parquet, summary.json and, last, metrics.json into a folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if result.predictions is not None:
        result.predictions.to_parquet(target / "predictions.parquet")
    if result.shares is not None:
        write_shares(target / OUTCOMES, result.shares)
    for name, content in (("summary.json", result.details()), ("metrics.json", result.to_metrics_json())):
        temporary = target / f".{name}.tmp"
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )
        temporary.replace(target / name)


def read_result(folder: str | Path) -> EvalResult:
    """Read what `write_result` wrote.

    Raises:
        DataError: a file is missing or not of this kind; names it.
    """
    source = Path(folder)
    for name in ("predictions.parquet", "summary.json"):
        if not (source / name).is_file():
            raise DataError(f"{source} holds no {name}; rmg eval --out {source} writes it")
    shares = read_shares(source / OUTCOMES) if (source / OUTCOMES).is_file() else None
    predictions = None if shares else Predictions.from_parquet(source / "predictions.parquet")
    try:
        details = json.loads((source / "summary.json").read_text("utf-8"))
        baselines = tuple(
            BaselineResult(
                name, found["rule"], found["note"], _metrics(found["metrics"]), _estimate(found["difference"])
            )
            for name, found in details["baselines"].items()
        )
        fields = {name: details[name] for name in ("benchmark", "model", "mode", "made", "n", "prompts")}
        return EvalResult(
            kind=details["task"],
            headline=details.get("headline", REWARD),
            predictions=predictions,
            shares=shares,
            metrics=_metrics(details["metrics"]) or {},
            baselines=baselines,
            notes=tuple(details["notes"]),
            **fields,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{source / 'summary.json'} is not a summary written by rmg eval: {error!r}"
        ) from error


def _metrics(found: dict[str, Any] | None) -> dict[str, Estimate] | None:
    return None if found is None else {name: Estimate.from_dict(values) for name, values in found.items()}


def _estimate(found: dict[str, Any] | None) -> Estimate | None:
    return None if found is None else Estimate.from_dict(found)
