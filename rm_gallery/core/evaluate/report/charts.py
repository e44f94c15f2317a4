"""The charts of the report."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from rm_gallery.core.evaluate.calibration import ReliabilityBin
from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.report.svg import (
    BLUE,
    COLORS,
    GREY,
    GRID,
    MARKERS,
    ORANGE,
    SOFT,
    draw,
)
from rm_gallery.core.evaluate.statistics import Estimate
from rm_gallery.core.train.log import TrainingRun

_BINS = 24


def intervals(systems: Sequence[tuple[str, Estimate, bool]], label: str, name: str) -> Markup:
    """A figure of several systems with its intervals; (name, estimate, whether it is a judge)."""

    def plot(axes: Any) -> None:
        for i, (_, estimate, judge) in enumerate(systems):
            color = BLUE if judge else GREY
            if not math.isnan(estimate.low):
                axes.plot([estimate.low, estimate.high], [i, i], color=color, linewidth=2.5)
            axes.plot([estimate.value], [i], "o" if judge else "D", color=color, markersize=6)
            text = "undefined" if math.isnan(estimate.value) else f"{estimate.value:.3f}"
            at = 0.0 if math.isnan(estimate.value) else estimate.value
            _over(axes, at, i, text, color if judge else SOFT, 9, 7)
        axes.set_yticks(range(len(systems)), [_wrapped(system) for system, _, _ in systems])
        axes.set_ylim(len(systems) - 0.5, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_xlabel(f"{label} with its 95% interval")
        axes.locator_params(axis="x", nbins=5)

    return draw(plot, name, f"{label} of each system with its interval", 5.2, 0.9 + 0.42 * len(systems))


def histogram(predictions: Predictions, title: str, name: str) -> Markup:
    """How often each verdict is the label and how often the judge gives it, with the invalid outputs."""
    labels: list[Any] = [*predictions.labels, None]
    truth = [sum(value == label for value in predictions.truth) for label in labels]
    given = [sum(value == label for value in predictions.predicted) for label in labels]

    def plot(axes: Any) -> None:
        positions = range(len(labels))
        axes.bar([p - 0.2 for p in positions], truth, 0.38, color=GREY, label="label")
        axes.bar([p + 0.2 for p in positions], given, 0.38, color=BLUE, label="verdict of the judge")
        for p, (label, mine, yours) in enumerate(zip(labels, truth, given, strict=True)):
            if label is not None:
                _over(axes, p - 0.2, mine, str(mine), SOFT)
            _over(axes, p + 0.2, yours, str(yours), BLUE)
        axes.set_xticks(list(positions), ["invalid" if label is None else str(label) for label in labels])
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("score" if predictions.kind == "pointwise" else "preferred response, as shown")
        axes.set_ylabel("answers")
        axes.set_ylim(0, max(*truth, *given, 1) * 1.12)
        _above(axes, title, 2)

    return draw(plot, name, f"{title}: labels and verdicts by value", 4.2, 3.0)


def values(chosen: Sequence[float], rejected: Sequence[float], title: str, name: str) -> Markup:
    """How a model that scores spreads its numbers over the right and the wrong responses."""

    def plot(axes: Any) -> None:
        every = np.asarray([*chosen, *rejected], dtype=np.float64)
        single = sorted(set(every.tolist()))
        if 1 < len(single) <= _BINS // 2:  # whole scores: a bar each
            gap = min(b - a for a, b in pairwise(single))
            edges = np.array([single[0] - gap / 2, *(np.array(single) + gap / 2)])
        else:
            edges = np.histogram_bin_edges(every, bins=min(_BINS, math.ceil(math.sqrt(len(every)))))
        for numbers, label, color, dash in (
            (chosen, "right response", BLUE, "-"),
            (rejected, "wrong response", ORANGE, "--"),
        ):
            counts, _ = np.histogram(numbers, bins=edges)
            axes.stairs(counts, edges, fill=True, color=color, alpha=0.2)
            axes.stairs(counts, edges, color=color, linewidth=1.6, linestyle=dash, label=label)
        axes.set_xlabel("number given to a response")
        axes.set_ylabel("responses")
        axes.locator_params(axis="x", nbins=6)
        axes.locator_params(axis="y", integer=True)
        _above(axes, title, 2)

    return draw(plot, name, f"{title}: numbers for right and wrong responses", 4.2, 3.0)


def reliability_curve(bins: Sequence[ReliabilityBin], title: str, name: str) -> Markup:
    """How often a verdict is right against how probable the judge finds it; a point for each bin of the ECE."""

    def plot(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="calibrated")
        x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
        axes.plot(x, y, color=BLUE, marker="o", markersize=5, linewidth=1.6, label="the judge (answers)")
        for found in bins:
            below = found.accuracy > 0.9
            _over(axes, found.confidence, found.accuracy, str(found.n), BLUE, 8, -12 if below else 5)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel("probability of its verdict")
        axes.set_ylabel("share that is right")
        axes.grid(color=GRID, linewidth=0.8)
        _above(axes, title, 2)

    return draw(plot, name, f"{title}: share of right verdicts against their probability", 4.2, 3.6)


def curve(run: TrainingRun, metric: str, title: str, name: str) -> Markup | None:
    """A metric against the step: every training step faint, its moving average bold, held-out points orange; for the
    reward also what a constant earns on the held-out rows.

    None where the run did not log it.
    """
    steps, logged = run.series(metric, "train")
    held_steps, held = run.series(metric, "val")
    constant = run.series("reward/best_constant", "val")[1] if metric == "reward/mean" else []
    if not steps and not held_steps:
        return None

    def plot(axes: Any) -> None:
        if steps:
            axes.plot(steps, logged, color=BLUE, alpha=0.25, linewidth=1)
            axes.plot(steps, _moving_average(logged), color=BLUE, linewidth=2, label="training")
        if held_steps:
            style = {"color": ORANGE, "marker": "o", "markersize": 4, "linewidth": 1.2}
            axes.plot(held_steps, held, label="held out", **style)
        if constant:
            axes.axhline(
                constant[-1], color=GREY, linestyle="--", linewidth=1.4, label="best constant, held out"
            )
        axes.set_xlabel("training step")
        axes.set_ylabel(metric.replace("_", " "))
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.locator_params(axis="y", nbins=5)
        _above(axes, title, 2 + bool(constant))

    return draw(plot, name, f"{title} against training step", 4.2, 3.2 if constant else 3.0)


@dataclass(frozen=True)
class Line:
    """A figure of one run's checkpoints, by step; steps where it is undefined are left out."""

    name: str
    points: Sequence[tuple[int, Estimate]]


def bands(lines: Sequence[Line], flat: Mapping[str, float], title: str, label: str, name: str) -> Markup:
    """A figure against the step with the band of its intervals, a line a run; `flat` are the baselines' levels."""

    def plot(axes: Any) -> None:
        for i, line in enumerate(lines):
            color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
            steps = [step for step, _ in line.points]
            axes.plot(
                steps,
                [e.value for _, e in line.points],
                color=color,
                marker=marker,
                markersize=4,
                linewidth=1.8,
                label=_wrapped(line.name),
            )
            inside = [(s, e.low, e.high) for s, e in line.points if not math.isnan(e.low)]
            if inside:
                axes.fill_between(*zip(*inside, strict=True), color=color, alpha=0.18, linewidth=0)
        for (baseline, value), dash in zip(flat.items(), ("--", ":"), strict=False):
            axes.axhline(value, color=GREY, linestyle=dash, linewidth=1.4, label=baseline)
        axes.set_xlabel("training step")
        axes.set_ylabel(label)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.locator_params(axis="y", nbins=5)
        if axes.dataLim.height == 0:  # the same everywhere: no made-up scale around it
            low = axes.dataLim.y0
            axes.set_ylim(min(0.0, low), max(1.0, low))
        _above(axes, title, len(lines) + len(flat))

    height = 3.0 + 0.2 * math.ceil((len(lines) + len(flat)) / 2)
    return draw(plot, name, f"{title} against training step, with intervals", 4.2, height)


def _above(axes: Any, title: str, entries: int) -> None:
    """The title, and between it and the axes the legend of so many entries, where it hides nothing."""
    columns = 2
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=1.6,
        columnspacing=1.2,
    )
    rows = math.ceil(entries / columns)
    axes.set_title(_wrapped(title, 44), pad=8 + 16 * rows)


def _over(axes: Any, x: float, y: float, text: str, color: str, size: int = 8, above: float = 2) -> None:
    axes.annotate(
        text, (x, y), xytext=(0, above), textcoords="offset points", ha="center", fontsize=size, color=color
    )


def _wrapped(text: str, width: int = 22) -> str:
    lines = textwrap.wrap(text, width) or [""]
    return "\n".join(lines if len(lines) < 4 else [*lines[:2], "…"])


def _moving_average(logged: Sequence[float]) -> list[float]:
    """The mean over a window centred on each step: a tenth of the run, at most 21 steps, cut at its ends."""
    half = min(10, len(logged) // 20)
    around = [logged[max(0, i - half) : i + half + 1] for i in range(len(logged))]
    return [sum(part) / len(part) for part in around]
