"""What the judges of one group said, against what is right: counts, histograms, matrices, calibration, styles."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.evaluate.benchmarks import get_benchmark
from rm_gallery.core.evaluate.calibration import reliability
from rm_gallery.core.evaluate.metrics import compute_metrics
from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.report import charts
from rm_gallery.core.evaluate.report.answers import Scored
from rm_gallery.core.evaluate.report.inputs import Evaluation
from rm_gallery.core.evaluate.report.svg import MISSING
from rm_gallery.core.evaluate.result import EvalResult
from rm_gallery.core.judge.answer import FAILED, OVERLONG, UNFINISHED, UNPARSABLE

_PROBLEMS = (UNPARSABLE, UNFINISHED, OVERLONG, FAILED)
_STYLE = re.compile(r"style_(\d+)_(\d+)")


def outcomes(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """For each judge how many answers there are, and how many have no verdict, by what went wrong."""
    lines = []
    for evaluation in evaluations:
        if (observed := evaluation.observed) is None:
            continue
        counts = Counter(problem.partition(":")[0] for problem in observed.problem if problem)
        missing, size = counts.total(), len(observed)
        masses = [mass for mass in observed.mass if mass is not None]
        lines.append(
            {
                "name": evaluation.name,
                "answers": size,
                "problems": [counts[name] for name in _PROBLEMS],
                "missing": missing,
                "share": f"{missing / max(size, 1):.1%}",
                "mass": f"{sum(masses) / len(masses):.3g}" if masses else "-",
            }
        )
    return lines


def missing_share(evaluation: Evaluation) -> str:
    """The share of answers without a verdict, "-" where the answers are not known."""
    lines = outcomes([evaluation])
    return str(lines[0]["share"]) if lines else "-"


def pictures(evaluations: Sequence[Evaluation], prefix: str) -> list[dict[str, Any]]:
    """For each judge its histogram, its reliability curve where it gave distributions, and label × verdict."""
    found = []
    for i, (title, observed, result) in enumerate(_views(evaluations)):
        name = f"{prefix}-{i}"
        drawn: list[Markup] = []
        if isinstance(observed, Scored):
            chosen, rejected = observed.values_by_label()
            if chosen and rejected:
                drawn.append(charts.values(chosen, rejected, title, f"{name}-values"))
        elif observed is not None:
            drawn.append(charts.histogram(observed, title, f"{name}-labels"))
            if any(p is not None for p in observed.probabilities):
                error = _calibration_error(result, observed)
                labelled = f"{title}: ECE {error:.3f}"
                drawn.append(charts.reliability_curve(reliability(observed), labelled, f"{name}-bins"))
        matrix = _confusion(observed) if isinstance(observed, Predictions) else None
        if drawn or matrix:
            drawn = [MISSING] if MISSING in drawn else drawn
            found.append({"name": title, "charts": drawn, "matrix": matrix})
    return found


def _views(
    evaluations: Sequence[Evaluation],
) -> Iterator[tuple[str, Predictions | Scored | None, EvalResult | None]]:
    """(name, what was observed, its result) of each judge; of several dimensions each by itself, which has no result."""
    for evaluation in evaluations:
        observed = evaluation.observed
        if isinstance(observed, Predictions) and observed.parts:
            for part in observed.parts:
                yield f"{evaluation.name}, {part.name}", part.predictions, None
        else:
            yield evaluation.name, observed, evaluation.result


def _calibration_error(result: EvalResult | None, observed: Predictions) -> float:
    known = result.metrics.get("ece") if result else None
    return compute_metrics(observed)["ece"] if known is None else known.value


def _confusion(predictions: Predictions) -> dict[str, Any]:
    """Rows by label × verdict; the shade of a cell is its share of the label's rows."""
    columns: list[Any] = [*predictions.labels, None]
    pairs = Counter(zip(predictions.truth, predictions.predicted, strict=True))
    rows = []
    for label in predictions.labels:
        counts = [pairs[label, column] for column in columns]
        total = sum(counts)
        cells = [
            {"count": n, "shade": round(n / max(total, 1), 2), "right": column == label}
            for n, column in zip(counts, columns, strict=True)
        ]
        rows.append({"label": label, "cells": cells, "total": total})
    return {"columns": ["invalid" if column is None else column for column in columns], "rows": rows}


def style_maps(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """For each judge of a benchmark with styles the accuracy by style of the right and of the wrong answer."""
    return [
        {"name": evaluation.name, **found}
        for evaluation in evaluations
        if (found := _styles(evaluation.result)) is not None
    ]


def _styles(result: EvalResult) -> dict[str, Any] | None:
    cells = {
        (int(match[1]), int(match[2])): estimate
        for name, estimate in result.metrics.items()
        if (match := _STYLE.fullmatch(name))
    }
    if result.shares is None or not cells:
        return None
    size = max(max(place) for place in cells) + 1
    names = _style_names(result.benchmark)
    if len(names) != size:
        names = tuple(f"style {i}" for i in range(size))
    rows = [
        {"name": names[i], "cells": [_shaded(cells[i, j]) for j in range(size) if (i, j) in cells]}
        for i in range(size)
    ]
    return {"names": names, "rows": rows}


def _style_names(benchmark: str) -> tuple[str, ...]:
    try:
        return get_benchmark(benchmark).styles
    except ConfigError:  # one's own, which the report is not told where to find
        return ()


def _shaded(estimate: Any) -> dict[str, Any]:
    """A half, what a coin gives, has no shade; more is blue and less is orange."""
    if math.isnan(estimate.value):
        return {"value": "-", "interval": "", "class": "", "shade": 0}
    interval = "" if math.isnan(estimate.low) else f"{estimate.low:.2f} to {estimate.high:.2f}"
    return {
        "value": f"{estimate.value:.3f}",
        "interval": interval,
        "class": "less" if estimate.value < 0.5 else "more",
        "shade": round(2 * abs(estimate.value - 0.5), 2),
    }
