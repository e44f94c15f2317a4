"""Judges on the same rows or items, beside each other and beside what costs nothing: the tables of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.metrics import METRICS
from rm_gallery.core.evaluate.report.inputs import Evaluation
from rm_gallery.core.evaluate.result import (
    BaselineResult,
    EvalResult,
    reference,
)
from rm_gallery.core.evaluate.shares import share_differences, share_mcnemar
from rm_gallery.core.evaluate.statistics import Estimate, paired_differences, paired_mcnemar
from rm_gallery.core.evaluate.table import OF_DIMENSION, TITLES, dimension_names, figure, shown_metrics

ORDER = {
    "flip_rate": "the verdicts of the two orders differ",
    "first_position_rate": "of the verdicts that prefer one, those for the response shown first; 0.5 is no bias",
    "two_order_accuracy": "right in both orders",
    "two_order_agreement": "legal and the same in both orders",
    "inconsistent_rate": "not one and the same decided verdict in both orders",
    "reversal_rate": "decided in both orders, and opposite",
}
"""The figures of the two orders, which have a table of their own, and what each is the share of."""

LESS_IS_BETTER = frozenset(
    (
        *("mae", "mae_parsed", "invalid", "invalid_rate", "brier", "rps", "ece"),
        *("flip_rate", "inconsistent_rate", "reversal_rate"),
    )
)
NEITHER = frozenset(("first_position_rate", "tie_rate", "mass"))
"""Figures of which more is neither better nor worse."""


def same_rows(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Evaluations of the same rows, or of the same items of a benchmark, together, in the order given."""
    groups: dict[tuple[Any, ...], list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(_rows(evaluation.result), []).append(evaluation)
    return list(groups.values())


def _rows(result: EvalResult) -> tuple[Any, ...]:
    if result.shares is not None:
        units = zip(result.shares.unit, result.shares.cluster, strict=True)
        return ("items", result.benchmark, *sorted(units))
    predictions = result.predictions
    assert predictions is not None
    rows = zip(predictions.unique_id, predictions.cluster, map(str, predictions.truth), strict=True)
    return ("rows", predictions.kind, *sorted(rows))


@dataclass(frozen=True)
class Column:
    """A system of the table: a judge (`index` is its place among them) or a baseline."""

    name: str
    what: str
    note: str
    metrics: Mapping[str, Estimate] | None
    n: int
    index: int | None = None


class Systems:
    """The judges of one group with their baselines."""

    def __init__(self, evaluations: Sequence[Evaluation]) -> None:
        self.evaluations = evaluations
        self.results = [evaluation.result for evaluation in evaluations]
        self.first, self.last = self.results[0], self.results[-1]
        self.headline = self._headline()
        self.columns = [
            Column(e.name, f"{e.result.model}, mode {e.result.mode}", "", e.result.metrics, e.result.n, i)
            for i, e in enumerate(evaluations)
        ] + self._baselines()
        self._differences: dict[tuple[int, int], Mapping[str, Estimate]] = {}

    def _headline(self) -> str:
        """The figure by which all are compared: a headline figure that is defined for each, else the last one's."""
        for name in dict.fromkeys(result.headline for result in reversed(self.results)):
            if all(name in r.metrics and not math.isnan(r.metrics[name].value) for r in self.results):
                return name
        return self.last.headline

    def _baselines(self) -> list[Column]:
        """Each once; under the judge's name too where the judges' differ, as with other training rows."""
        found: dict[str, list[tuple[Evaluation, BaselineResult]]] = {}
        for evaluation in reversed(self.evaluations):
            for baseline in evaluation.result.baselines:
                others = found.setdefault(baseline.name, [])
                if not any(_alike(baseline, other) for _, other in others):
                    others.append((evaluation, baseline))
        return [
            Column(
                name if len(different) == 1 else f"{name}, as for {evaluation.name}",
                baseline.rule,
                baseline.note,
                baseline.metrics,
                evaluation.result.n,
            )
            for name, different in found.items()
            for evaluation, baseline in different
        ]

    def metrics(self) -> tuple[list[str], list[str]]:
        """The names of all figures in the order of the table, and those of the two orders."""
        if self.last.shares is None:
            known = METRICS[self.last.kind]
            # the invalid line says what parse_rate says
            every = [name for name in known if self._has(name) and name != "parse_rate"]
        else:
            every = list(dict.fromkeys(name for r in reversed(self.results) for name in shown_metrics(r)))
        orders = [name for name in ORDER if name in every and self._defined(name)]
        return [name for name in every if name not in ORDER], orders

    def _has(self, metric: str) -> bool:
        return any(metric in result.metrics for result in self.results)

    def _defined(self, metric: str) -> bool:
        return any(
            metric in result.metrics and not math.isnan(result.metrics[metric].value)
            for result in self.results
        )

    def difference(self, one: int, other: int) -> Mapping[str, Estimate]:
        """Every figure of a judge minus that of another one, on the same resamples."""
        if (one, other) not in self._differences:
            self._differences[one, other] = _difference(self.results[one], self.results[other])
        return self._differences[one, other]

    def best(self, metric: str) -> int | None:
        """The judge that is better than every other: the interval of each paired difference leaves out 0."""
        sign = -1 if metric in LESS_IS_BETTER else 1
        values = {
            i: sign * result.metrics[metric].value
            for i, result in enumerate(self.results)
            if metric in result.metrics and not math.isnan(result.metrics[metric].value)
        }
        if metric in NEITHER or len(values) < 2:
            return None
        top = max(values, key=lambda i: values[i])
        others = [self.difference(top, i)[metric] for i in values if i != top]
        return top if all(_shown(change) for change in others) else None


def _alike(one: BaselineResult, other: BaselineResult) -> bool:
    def figures(baseline: BaselineResult) -> Any:
        return baseline.metrics and {name: e.to_dict() for name, e in baseline.metrics.items()}

    return one.rule == other.rule and figures(one) == figures(other)


def _difference(one: EvalResult, other: EvalResult) -> Mapping[str, Estimate]:
    if one.shares is not None and other.shares is not None:
        return share_differences(one.shares, other.shares)
    assert one.predictions is not None
    assert other.predictions is not None
    return paired_differences(one.predictions, other.predictions)


def _shown(difference: Estimate) -> bool:
    return not math.isnan(difference.low) and not difference.low <= 0 <= difference.high


# -- what the template is given


def title(metric: str, result: EvalResult) -> str:
    """A figure's name for readers."""
    return TITLES.get(metric, metric) if result.shares is None else metric.replace("_", " ")


def table(systems: Systems, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A line a figure, a cell a system."""
    lines = []
    for metric in metrics:
        best = systems.best(metric)
        cells = [
            {**_cell(metric, column), "best": best is not None and best == column.index}
            for column in systems.columns
            if column.metrics is not None
        ]
        lines.append(
            {
                "title": title(metric, systems.last),
                "what": ORDER.get(metric, ""),
                "headline": metric == systems.headline,
                "cells": cells,
            }
        )
    return lines


def _cell(metric: str, column: Column) -> dict[str, str]:
    estimate = (column.metrics or {}).get(metric)
    if estimate is None:
        return {"value": "-", "interval": ""}
    if metric == "invalid":
        return {"value": str(round(estimate.value)), "interval": f"{estimate.value / column.n:.1%}"}
    value, interval = texts(estimate)
    if metric == "mass" and 0 < estimate.value < 0.01:  # is often tiny, and then it matters that it is
        value, interval = f"{estimate.value:.2g}", f"{estimate.low:.2g} to {estimate.high:.2g}"
    return {"value": value, "interval": interval}


def texts(estimate: Estimate, digits: int = 3) -> tuple[str, str]:
    """(value, interval), the latter empty where there is none."""
    value, interval = figure(estimate, digits)
    return value, "" if interval == "-" else interval.replace("..", " to ")


def by_dimension(systems: Systems) -> list[dict[str, Any]]:
    """For each judge of several dimensions a table with a row for each, the baseline to beat first in the cells."""
    tables = []
    for evaluation, column in zip(systems.evaluations, systems.columns, strict=False):
        result = evaluation.result
        other = result.baseline(reference(result))
        below = Column(other.name, "", "", other.metrics, result.n)
        rows = []
        for name in dimension_names(result):
            cells = []
            for metric in (f"{each}/{name}" for each in OF_DIMENSION):
                cells.append({**_cell(metric, column), "other": _cell(metric, below)["value"]})
            rows.append({"name": name, "weight": f"{_weight(result, name):.2g}", "cells": cells})
        if rows:
            titles = [TITLES[name] for name in OF_DIMENSION]
            tables.append({"name": evaluation.name, "titles": titles, "rows": rows, "other": other.name})
    return tables


def _weight(result: EvalResult, name: str) -> float:
    parts = result.predictions.parts if result.predictions else ()
    return next(part.weight for part in parts if part.name == name)


def against_baselines(systems: Systems) -> dict[str, Any]:
    """The headline figure of each judge minus each of its own baselines."""
    names = list(dict.fromkeys(b.name for r in systems.results for b in r.baselines if b.difference))
    lines = []
    for evaluation in systems.evaluations:
        result = evaluation.result
        found = {b.name: b.difference for b in result.baselines if b.difference}
        cells = [change(result.headline, found[name]) if name in found else None for name in names]
        lines.append({"name": evaluation.name, "figure": title(result.headline, result), "cells": cells})
    return {"names": names, "lines": lines}


def last_to_first(systems: Systems) -> list[dict[str, Any]]:
    """Every figure of the last judge minus the first's, with McNemar's p where answers are right or wrong."""
    if len(systems.results) < 2:
        return []
    changes = systems.difference(len(systems.results) - 1, 0)
    names, orders = systems.metrics()
    # a scalar model has no figures of the two orders, so there is nothing to subtract
    orders = [name for name in orders if name in changes and not math.isnan(changes[name].value)]
    names = [*(name for name in names if name in changes), *orders]
    lines = []
    for metric in names:
        digits = 0 if metric == "invalid" else 3
        lines.append(
            {
                "title": title(metric, systems.last),
                "before": texts(systems.first.metrics[metric], digits)[0],
                "after": texts(systems.last.metrics[metric], digits)[0],
                "p": _p(systems.last, systems.first, metric),
                **change(metric, changes[metric]),
            }
        )
    return lines


def change(metric: str, difference: Estimate) -> dict[str, str]:
    """A difference, its interval, and what it says."""
    digits = 0 if metric == "invalid" else 3
    low, high = f"{difference.low:+.{digits}f}", f"{difference.high:+.{digits}f}"
    return {
        "change": "-" if math.isnan(difference.value) else f"{difference.value:+.{digits}f}",
        "interval": "" if math.isnan(difference.low) else f"{low} to {high}",
        "reading": _reading(metric, difference),
    }


def _reading(metric: str, change: Estimate) -> str:
    if math.isnan(change.low) or metric in NEITHER:
        return ""
    if not _shown(change):
        return "not shown"
    return "better" if (change.value < 0) == (metric in LESS_IS_BETTER) else "worse"


def _p(last: EvalResult, first: EvalResult, metric: str) -> str:
    """With how many only the one has right, and only the other; empty where answers are not right or wrong."""
    if metric in LESS_IS_BETTER | NEITHER:
        return ""
    if last.shares is not None and first.shares is not None:
        try:
            found = share_mcnemar(last.shares, first.shares, metric)
        except DataError:  # no column of right and wrong
            return ""
    elif metric == "accuracy" and last.predictions is not None and first.predictions is not None:
        found = paired_mcnemar(last.predictions, first.predictions)
    else:
        return ""
    counts = f"{found.only_first} : {found.only_second}"
    return f"{'< 0.001' if found.p < 0.001 else f'{found.p:.3f}'} ({counts})"
