"""The charts, as inline SVG: the same figures give the same bytes, and text stays text."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.statistics import Estimate
from rm_gallery.core.train.log import TrainingRun

# Okabe and Ito's colours, told apart also by those who do not see red and green as different
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8a8f98", "#22252a"
MISSING = Markup(
    '<p class="note">The plot is left out: matplotlib is not installed (pip install "rm-gallery[plot]").</p>'
)
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#c4c8ce",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#5b616b",
    "ytick.color": "#5b616b",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def curve(run: TrainingRun, metric: str, title: str, name: str) -> Markup | None:
    """A metric against the step: every training step faint, its moving average bold, held-out points orange.

    None where the run did not log it.
    """
    steps, values = run.series(metric, "train")
    held_steps, held = run.series(metric, "val")
    if not steps and not held_steps:
        return None

    def draw(axes: Any) -> None:
        if steps:
            smooth = _moving_average(values)
            axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=1)
            axes.plot(steps, smooth, color=BLUE, linewidth=2)
        if held_steps:
            axes.plot(held_steps, held, color=ORANGE, marker="o", markersize=4, linewidth=1.2)
        ends = []
        if steps:
            ends.append((steps[-1], _moving_average(values)[-1], "training", BLUE))
        if held_steps:
            ends.append((held_steps[-1], held[-1], "held out", ORANGE))
        _label_ends(axes, ends)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(axis="y", color="#eceef1", linewidth=0.8)
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.locator_params(axis="y", nbins=5)

    return _svg(draw, name, f"{title} against training step", 4.0, 2.5)


def intervals(systems: Sequence[tuple[str, Estimate, bool]], label: str, name: str) -> Markup:
    """A figure of several systems with its intervals; (name, estimate, whether it is a judge)."""

    def draw(axes: Any) -> None:
        for i, (_, estimate, judge) in enumerate(systems):
            color = BLUE if judge else GREY
            if not math.isnan(estimate.low):
                axes.plot([estimate.low, estimate.high], [i, i], color=color, linewidth=2.5)
            axes.plot([estimate.value], [i], "o", color=color, markersize=6)
            axes.annotate(
                f"{estimate.value:.3f}",
                (estimate.value, i),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                color=color if judge else "#5b616b",
                fontsize=9,
            )
        axes.set_yticks(range(len(systems)), [system for system, _, _ in systems])
        axes.set_ylim(len(systems) - 0.5, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#eceef1", linewidth=0.8)
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=6)

    return _svg(draw, name, f"{label} of each system with its interval", 4.4, 0.9 + 0.4 * len(systems))


def histogram(predictions: Predictions, title: str, name: str) -> Markup:
    """How often each verdict is the label and how often the judge gives it, with the invalid outputs."""
    labels: list[Any] = [*predictions.labels, None]
    truth = [sum(value == label for value in predictions.truth) for label in labels]
    given = [sum(value == label for value in predictions.predicted) for label in labels]

    def draw(axes: Any) -> None:
        positions = range(len(labels))
        axes.bar([p - 0.2 for p in positions], truth, 0.38, color=GREY)
        axes.bar([p + 0.2 for p in positions], given, 0.38, color=BLUE)
        for p, count in zip(positions, truth, strict=True):
            if labels[p] is not None:
                _count(axes, p - 0.2, count, "#5b616b")
        for p, count in zip(positions, given, strict=True):
            _count(axes, p + 0.2, count, BLUE)
        axes.set_xticks(list(positions), ["invalid" if label is None else str(label) for label in labels])
        axes.tick_params(axis="x", length=0)
        axes.set_title(title, pad=20)
        axes.text(0, 1.03, "label", color="#5b616b", transform=axes.transAxes, fontsize=10)
        axes.text(0.15, 1.03, "verdict of the judge", color=BLUE, transform=axes.transAxes, fontsize=10)
        axes.set_ylabel("rows")
        axes.set_ylim(0, max(*truth, *given, 1) * 1.12)

    return _svg(draw, name, f"{title}: labels and verdicts by value", 4.2, 2.7)


def _count(axes: Any, x: float, count: int, color: str) -> None:
    axes.annotate(
        str(count),
        (x, count),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=color,
    )


def _label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Name each line at its right end, apart where the ends lie close together."""
    low, high = axes.get_ylim()
    apart = 0.09 * (high - low)
    placed: list[float] = []
    for x, y, text, color in sorted(ends, key=lambda end: end[1]):
        at = max(y, placed[-1] + apart) if placed else y
        placed.append(at)
        axes.annotate(
            text,
            (x, at),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=9,
            annotation_clip=False,
        )


def _moving_average(values: Sequence[float]) -> list[float]:
    """The mean over a window centred on each step: a tenth of the run, at most 21 steps, cut at its ends."""
    half = min(10, len(values) // 20)
    around = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in around]


def _svg(draw: Any, name: str, description: str, width: float, height: float) -> Markup:
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return MISSING
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # several drawings share a page: their ids must differ
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    opening = f'<svg role="img" aria-label="{escape(description)}" style="max-width:{round(width * 96)}px"'
    text = re.sub(
        r'<svg\b|(?<=") (?:width|height)="[\d.]+pt"',
        lambda m: opening if m[0] == "<svg" else "",
        text,
        count=3,
    )
    return Markup(text)
