"""`EvalResult`: one judge on one set of rows, with its baselines beside it, and the files that hold it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rm_gallery.core.data.samples import Row
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.baselines import compute_baselines
from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.statistics import RESAMPLES, Estimate, estimates, paired_difference
from rm_gallery.core.tasks import Task

HEADLINE = "reward"


@dataclass(frozen=True)
class BaselineResult:
    """A trivial predictor's figures on the same rows.

    `metrics` is None where it was not computed; `note` says why. `difference` is the judge's mean reward minus
    this one's, with the interval of the paired difference.
    """

    name: str
    rule: str
    note: str
    metrics: Mapping[str, Estimate] | None
    difference: Estimate | None


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found.

    Attributes:
        benchmark: the name of the data (the file's stem).
        model: the model, as it was named.
        mode: how verdicts were taken (`greedy`).
        predictions: the judge's answers.
        metrics: its figures with intervals.
        baselines: the trivial predictors on the same rows.
        notes: sentences a reader of the figures must know.
        made: how it was made (files, seconds, versions); not deterministic, so never in metrics.json.
    """

    benchmark: str
    model: str
    mode: str
    predictions: Predictions
    metrics: Mapping[str, Estimate]
    baselines: tuple[BaselineResult, ...]
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
            "n": len(self.predictions),
            "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()},
            "baselines": baselines,
        }

    def details(self) -> dict[str, Any]:
        """The content of summary.json: metrics.json with intervals for the baselines, notes and provenance."""
        return {
            **self.to_metrics_json(),
            "task": self.predictions.kind,
            "prompts": len(set(self.predictions.cluster)),
            "intervals": f"95%, percentile bootstrap of prompts, {RESAMPLES} resamples",
            "baselines": {
                found.name: {
                    "rule": found.rule,
                    "note": found.note,
                    "metrics": found.metrics and {name: e.to_dict() for name, e in found.metrics.items()},
                    "difference": found.difference and {"metric": HEADLINE, **found.difference.to_dict()},
                }
                for found in self.baselines
            },
            "notes": list(self.notes),
            "made": dict(self.made),
        }


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
    """Put a judge's predictions beside the trivial predictors on the same rows, all with intervals.

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
            difference = paired_difference(predictions, found.predictions, HEADLINE, seed=seed)
        baselines.append(BaselineResult(found.name, found.rule, found.note, metrics, difference))
    shared = len(set(predictions.cluster) & {task.cluster(row) for row in train or ()})
    warning = [f"{shared} of the evaluated prompts also stand in the training rows."] if shared else []
    return EvalResult(
        benchmark=benchmark,
        model=model,
        mode=mode,
        predictions=predictions,
        metrics=estimates(predictions, seed=seed),
        baselines=tuple(baselines),
        notes=(*notes, *warning),
        made=made or {},
    )


def headline(result: EvalResult, name: str = "best_constant") -> str:
    """One sentence: does the judge beat this baseline?"""
    found = result.baseline(name)
    value = result.metrics[HEADLINE]
    if found.metrics is None or found.difference is None:
        return f"There is no comparison with the baseline {name}: {found.note}."
    other, diff = found.metrics[HEADLINE], found.difference
    start = f"Mean reward {value.value:.3f} against {other.value:.3f} of {found.rule}: "
    if math.isnan(diff.low):
        return f"{start}a difference of {diff.value:+.3f} ({diff.reason})."
    interval = f"{diff.value:+.3f} (95% interval {diff.low:+.3f} to {diff.high:+.3f})"
    if diff.low > 0:
        return f"{start}the judge is better by {interval}."
    if diff.high < 0:
        return f"{start}the judge is worse, by {interval}."
    return f"{start}no proven difference, {interval}."


def strongest_baseline(result: EvalResult) -> str:
    """The name of the baseline with the highest mean reward; `best_constant` where none exceeds it."""
    computed = [found for found in result.baselines if found.metrics is not None]
    best = max(computed, key=lambda found: (found.metrics or {})[HEADLINE].value)
    constant = result.baseline("best_constant").metrics or {}
    return best.name if (best.metrics or {})[HEADLINE].value > constant[HEADLINE].value else "best_constant"


def write_result(folder: str | Path, result: EvalResult) -> None:
    """Write predictions.parquet, summary.json and, last, metrics.json into a folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    result.predictions.to_parquet(target / "predictions.parquet")
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
    predictions = Predictions.from_parquet(source / "predictions.parquet")
    try:
        details = json.loads((source / "summary.json").read_text("utf-8"))
        baselines = tuple(
            BaselineResult(
                name, found["rule"], found["note"], _metrics(found["metrics"]), _estimate(found["difference"])
            )
            for name, found in details["baselines"].items()
        )
        metrics = _metrics(details["metrics"]) or {}
        fields = {name: details[name] for name in ("benchmark", "model", "mode", "made")}
        return EvalResult(
            predictions=predictions,
            metrics=metrics,
            baselines=baselines,
            notes=tuple(details["notes"]),
            **fields,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{source / 'summary.json'} is not a summary written by rmg eval: {error!r}"
        ) from error


def _metrics(found: dict[str, Any] | None) -> dict[str, Estimate] | None:
    if found is None:
        return None
    read = {name: _estimate(values) for name, values in found.items()}
    return {name: estimate for name, estimate in read.items() if estimate is not None}


def _estimate(found: dict[str, Any] | None) -> Estimate | None:
    if found is None:
        return None
    value, low, high = (math.nan if found[k] is None else float(found[k]) for k in ("value", "low", "high"))
    return Estimate(value, low, high, int(found["n"]), found.get("reason"))
