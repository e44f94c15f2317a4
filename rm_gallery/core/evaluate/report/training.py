"""Training runs: their own curves, and the figures of their checkpoints against the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rm_gallery.core.evaluate.report import charts
from rm_gallery.core.evaluate.report.inputs import Curve
from rm_gallery.core.evaluate.report.svg import MISSING
from rm_gallery.core.evaluate.report.systems import texts
from rm_gallery.core.evaluate.table import TITLES
from rm_gallery.core.train.log import TrainingRun

_CURVES = {
    "reward/mean": "Mean reward",
    "accuracy": "Accuracy",
    "mae": "Mean absolute error",
    "parse_rate": "Share of outputs with a verdict",
    "kl_loss": "KL to the reference model",
    "entropy": "Entropy",
}
_SUPERVISED = {
    "loss": "Loss on the answer's tokens",
    "token_accuracy": "Answer tokens that are the likeliest",
}
_SCALAR = {
    "loss": "Loss",
    "accuracy_untied": "Accuracy on untied pairs",
    "reward/gap": "Score of the chosen response minus the other's",
    "mae": "Mean absolute error",
}
_DRAWN = (
    *("accuracy", "accuracy_untied", "easy", "normal", "hard", "combined_accuracy", "mae", "kappa"),
    *("pairwise_accuracy", "two_order_accuracy", "flip_rate", "brier", "parse_rate", "mass", "invalid_rate"),
)
"""After the headline figure, as many of these as are there (also of a part of a benchmark), up to `_CHARTS` in all."""
_CHARTS = 6


def run_section(name: str, run: TrainingRun) -> dict[str, Any]:
    """A run's curves, seconds and configuration."""
    # the loss of GRPO says nothing by itself: its gradient does
    if run.series("reward/mean", "train")[0]:
        titles = _CURVES
    else:
        titles = {**_SUPERVISED, **_CURVES} if run.series("token_accuracy", "train")[0] else _SCALAR
    drawn = [
        charts.curve(run, metric, title, f"{name}-{metric.replace('/', '-')}")
        for metric, title in titles.items()
    ]
    if MISSING in drawn:
        drawn = [MISSING]
    return {
        "name": run.name,
        "charts": [chart for chart in drawn if chart],
        "made": _made(run),
        "config": run.config,
    }


def _made(run: TrainingRun) -> list[tuple[str, str]]:
    made: list[tuple[str, str]] = []
    steps, seconds = run.series("timing_s/step", "train")
    if steps:
        made.append(("steps", str(steps[-1])))
        made.append(
            (
                "seconds",
                f"{sum(seconds):,.1f} in all, {sorted(seconds)[len(seconds) // 2]:.2f} a step (median)",
            )
        )
    parts = sorted(
        {key for record in run.records for key in record if key.startswith("timing_s/")} - {"timing_s/step"}
    )
    if parts:
        sums = [(part.split("/")[1], sum(run.series(part, "train")[1])) for part in parts]
        made.append(("seconds by part", ", ".join(f"{part} {total:,.1f}" for part, total in sums)))
    memory = [
        (key, float(record[key]))
        for record in run.records
        for key in record
        if "memory" in key and isinstance(record[key], (int, float))
    ]
    for key in sorted({key for key, _ in memory}):
        made.append((key, f"{max(value for other, value in memory if other == key):,.2f} at most"))
    return made


def curve_sections(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Curves over the same data are drawn together, a line a run."""
    groups: dict[tuple[str, int, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.benchmark, curve.n, curve.headline), []).append(curve)
    return [_together(f"c{i}", group) for i, group in enumerate(groups.values())]


def _together(name: str, curves: list[Curve]) -> dict[str, Any]:
    first, last = curves[0], curves[-1]
    names = {name.removesuffix("_partial"): name for name in first.points[-1][1]}
    wanted = dict.fromkeys((first.headline, *(names[name] for name in _DRAWN if name in names)))
    metrics = [metric for metric in wanted if any(_points(curve, metric) for curve in curves)][:_CHARTS]
    drawn = []
    for metric in metrics:
        title = TITLES.get(metric, metric.replace("_", " "))
        lines = [charts.Line(curve.run, _points(curve, metric)) for curve in curves]
        levels = {
            baseline: figures[metric].value
            for baseline, figures in last.baselines.items()
            if metric in figures and not math.isnan(figures[metric].value)
        }
        drawn.append(charts.bands(lines, levels, title, title, f"{name}-{metric}"))
    return {
        "benchmark": first.benchmark,
        "n": first.n,
        "modes": ", ".join(dict.fromkeys(curve.mode for curve in curves)),
        "charts": [MISSING] if MISSING in drawn else drawn,
        "titles": [TITLES.get(metric, metric.replace("_", " ")) for metric in metrics],
        "tables": [
            {
                "name": curve.run,
                "lines": [
                    (step, [texts(figures[metric]) if metric in figures else ("-", "") for metric in metrics])
                    for step, figures in curve.points
                ],
            }
            for curve in curves
        ],
    }


def _points(curve: Curve, metric: str) -> list[Any]:
    return [
        (step, figures[metric])
        for step, figures in curve.points
        if metric in figures and not math.isnan(figures[metric].value)
    ]
