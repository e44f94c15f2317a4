"""What is said in words: whether a judge beats what costs nothing, and what a reader of its figures must know."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rm_gallery.core.evaluate.report.inputs import Evaluation
from rm_gallery.core.evaluate.report.systems import ORDER, title
from rm_gallery.core.evaluate.result import EvalResult, headline, reference, strongest_baseline
from rm_gallery.core.evaluate.table import few, reasons

_CALLED = {
    "best_constant": "the best constant",
    "majority": "the most frequent label",
    "prior": "the shares of the labels",
    "length": "the response’s length",
    "longer": "choosing the longer response",
    "first": "choosing the first response",
    "random": "a coin",
}


def verdict(result: EvalResult, judge: str = "the judge") -> tuple[str, str]:
    """(class of the style sheet, sentence): does the judge, so called, beat what costs nothing?"""
    first, strongest = reference(result), strongest_baseline(result)
    difference = result.baseline(first).difference
    named, start = _called(first), judge[:1].upper() + judge[1:]
    if difference is None or math.isnan(difference.low):
        return "open", f"There are too few rows to say whether {judge} beats {named}."
    if difference.high < 0:
        return "no", f"{start} is worse than {named}."
    if difference.low <= 0:
        return "open", f"{start} is not shown to beat {named}."
    hardest = result.baseline(strongest).difference
    if strongest != first and hardest is not None and not hardest.low > 0:
        worse = hardest.high < 0
        says = "is worse than" if worse else "is not shown to beat"
        return "no" if worse else "open", f"{start} beats {named}, but {says} {_called(strongest)}."
    return "yes", f"{start} beats {named}."


def _called(baseline: str) -> str:
    return _CALLED.get(baseline, f"the baseline {baseline}")


def sentences(evaluation: Evaluation) -> list[str]:
    """The comparison with the baseline to beat first, and with the strongest; how many answers have no verdict."""
    result, observed = evaluation.result, evaluation.observed
    strongest = strongest_baseline(result)
    found = [headline(result)] + ([headline(result, strongest)] if strongest != reference(result) else [])
    if observed is not None and (missing := sum(map(bool, observed.problem))):
        found.append(f"{missing} of {len(observed)} answers ({missing / len(observed):.1%}) have no verdict.")
    return found


def notes(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """(judges, what a reader of their figures must know); no names where it holds for all of them.

    Without what the table of the orders says by itself.
    """
    found: dict[str, list[str]] = {}
    for evaluation in evaluations:
        result = evaluation.result
        said = [
            f"{title(metric, result)}: {reason}."
            for metric, reason in reasons(result)
            if result.kind == "pairwise" or metric not in ORDER
        ]
        for note in (*few(result), *result.notes, *said):
            found.setdefault(note, []).append(evaluation.name)
    return [
        ("" if len(names) == len(evaluations) else ", ".join(names), note) for note, names in found.items()
    ]
