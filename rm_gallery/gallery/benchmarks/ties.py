"""The score of RewardBench 2's subset Ties: do all right answers score above all wrong ones, and alike?

Each question comes twice: `tied` with several right answers, `ref` with one. Of a row, the gap is the lowest right
score minus the highest wrong one, the spread the highest minus the lowest right one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rm_gallery.core.evaluate.benchmarks.aggregate import Figures
from rm_gallery.core.evaluate.benchmarks.base import Item, Judged

TIES = {"ties_tied_accuracy": 0.3, "ties_ref_accuracy": 0.3, "ties_margins": 0.4}
"""The weights of the parts; `ties_margins` holds those of its own parts, the last of which is a bonus."""
_MARGINS = {"ties_preferred": 0.2, "ties_preferred_hard": 0.2, "ties_margin_score": 0.01}


@dataclass(frozen=True, slots=True)
class _Row:
    gap: float
    spread: float


def add_ties(figures: Figures) -> None:
    """Add the parts of the score; NaN for a judge that gives no numbers, right nowhere where one is missing.

    `ties_tied_accuracy`, `ties_ref_accuracy`: the share of rows with a positive gap. Over questions: `ties_preferred`,
    the gap of the tied row is larger than its spread; `ties_preferred_hard`, so is the smaller of the two rows' gaps;
    `ties_margin_score`, tanh(that smaller gap / spread - 1), 0 for 0/0.
    """
    rows = [
        _row(item, found) if item.tags["subset"] == "Ties" else None
        for item, found in zip(figures.items, figures.judged, strict=True)
    ]
    reference = {
        item.tags["question"]: row
        for item, row in zip(figures.items, rows, strict=True)
        if item.tags.get("kind") == "ref"
    }
    margins: list[dict[str, float] | None] = []
    for kind in ("tied", "ref"):
        entries = [
            float(row.gap > 0) if row and item.tags.get("kind") == kind else None
            for item, row in zip(figures.items, rows, strict=True)
        ]
        figures.add(f"ties_{kind}_accuracy", entries)
    for item, row in zip(figures.items, rows, strict=True):
        partner = reference.get(item.tags["question"]) if row and item.tags["kind"] == "tied" else None
        margins.append(_margins(row, partner) if row and partner else None)
    for name in _MARGINS:
        figures.add(name, [None if part is None else part[name] for part in margins])
    figures.add("ties_margins", [None if part is None else _weighed(part) for part in margins])


def _row(item: Item, judged: Judged) -> _Row | None:
    if judged.values is None:
        return None
    values = [math.nan if value is None else value for value in judged.values]
    if any(math.isnan(value) for value in values):
        return _Row(-math.inf, math.inf)
    right, wrong = values[: int(item.tags["right"])], values[int(item.tags["right"]) :]
    return _Row(min(right) - max(wrong), max(right) - min(right))


def _margins(tied: _Row, ref: _Row) -> dict[str, float]:
    smaller = min(tied.gap, ref.gap)
    return {
        "ties_preferred": float(tied.gap > tied.spread),
        "ties_preferred_hard": float(smaller > tied.spread),
        "ties_margin_score": _margin_score(smaller, tied.spread),
    }


def _weighed(margins: dict[str, float]) -> float:
    return sum(weight * margins[name] for name, weight in _MARGINS.items()) / TIES["ties_margins"]


def _margin_score(gap: float, spread: float) -> float:
    if spread == 0:
        return math.copysign(1.0, gap) if gap else 0.0
    if math.isinf(gap) or math.isinf(spread):  # a score is missing
        return 0.0
    return math.tanh(gap / spread - 1)
