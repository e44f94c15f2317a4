"""The table that `rmg eval` prints: one row a system, the figure above its interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rm_gallery.core.evaluate.metrics import base_metric
from rm_gallery.core.evaluate.orders import ORDER_COLUMNS
from rm_gallery.core.evaluate.result import EvalResult, headline, reference, strongest_baseline
from rm_gallery.core.evaluate.statistics import Estimate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TITLES = {
    "reward": "reward",
    "accuracy": "accuracy",
    "within_1": "within 1",
    "mae": "MAE",
    "mae_parsed": "MAE parsed",
    "kappa": "kappa",
    "spearman": "Spearman",
    "kendall": "Kendall",
    "pairwise_accuracy": "pairs",
    "pairwise_accuracy_half": "pairs, ties ½",
    "brier": "Brier",
    "rps": "RPS",
    "ece": "ECE",
    "mass": "legal mass",
    "parse_rate": "parsed",
    "invalid": "invalid",
    "accuracy_untied": "untied acc.",
    "two_order_accuracy": "both orders",
    "two_order_agreement": "agree",
    "flip_rate": "flips",
    "first_position_rate": "says A",
    "macro_f1": "macro F1",
}
_COLUMNS = {
    "pointwise": ("reward", "accuracy", "mae", "kappa", "invalid", "within_1", "mae_parsed", "spearman"),
    "pairwise": (
        *("reward", "accuracy_untied", "flip_rate", "first_position_rate", "invalid"),
        *("accuracy", "two_order_accuracy", "macro_f1"),
    ),
    "dimensions": ("reward", "accuracy", "mae", "pairwise_accuracy", "invalid", "pairwise_accuracy_half"),
}
"""The first five are shown in a narrow terminal, all of these in a wide one, every metric in one that holds them."""
OF_DIMENSION = ("reward", "accuracy", "mae", "kappa", "spearman", "pairwise_accuracy", "within_1")
"""The figures of one of several dimensions that are shown, in a wide terminal and in the report; the rest are in
metrics.json."""
FEW = 20
"""Prompts: from fewer the bootstrap's intervals hold the true figure too seldom."""
_WIDE = 130
_CELL = 14  # the width of an interval and what parts it from the next


def print_result(console: Console, result: EvalResult) -> None:
    """Print the table, the comparison with the best constant, and what a reader must know about them.

    A narrow terminal gets the main columns; all of them are in metrics.json.
    """
    from rich.table import Table

    if result.shares is not None:
        _print_benchmark(console, result)
        return
    kind = result.kind
    # the invalid column says what parse_rate says, and dimensions have a table of their own
    every = tuple(name for name in result.metrics if name != "parse_rate" and "/" not in name)
    shown = _COLUMNS[kind] if console.width >= _WIDE else _COLUMNS[kind][:5]
    names = every if console.width >= _CELL * (len(every) + 1) else tuple(n for n in every if n in shown)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in names:
        table.add_column(TITLES[name], justify="right", no_wrap=True)
    n = result.n
    table.add_row("judge", *cells(result.metrics, names, n), style="bold")
    for found in result.baselines:
        table.add_row(found.name, *cells(found.metrics or {}, names, n), style="dim")
    _print(console, result, table, *([_dimensions(console, result)] if dimension_names(result) else []))


def dimension_names(result: EvalResult) -> list[str]:
    """The dimensions that were measured, in their order; none of a judge of one score."""
    return [part.name for part in result.predictions.parts] if result.predictions else []


def _dimensions(console: Console, result: EvalResult) -> Table:
    """For each dimension a row of the judge, and one of the baseline to beat first."""
    from rich.table import Table

    names = OF_DIMENSION if console.width >= _WIDE else OF_DIMENSION[:4]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("dimension")
    for name in names:
        table.add_column(TITLES[name], justify="right", no_wrap=True)
    other = result.baseline(reference(result))
    for dimension in dimension_names(result):
        of_it = tuple(f"{name}/{dimension}" for name in names)
        table.add_row(dimension, *cells(result.metrics, of_it, result.n), style="bold")
        table.add_row(f"  {other.name}", *cells(other.metrics or {}, of_it, result.n), style="dim")
    return table


def _print_benchmark(console: Console, result: EvalResult) -> None:
    """A line a figure, a column a system: a benchmark has many of the former."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    systems = [("judge", result.metrics), *((found.name, found.metrics or {}) for found in result.baselines)]
    for name, _ in systems:
        table.add_column(name, justify="right", no_wrap=True)
    for metric in shown_metrics(result):
        values = []
        for i, (_, metrics) in enumerate(systems):
            value, interval = figure(metrics[metric]) if metric in metrics else ("-", "-")
            values.append(f"{value}  {interval}" if i == 0 else value)
        table.add_row(metric.replace("_", " "), *values, style="bold" if metric == result.headline else "")
    _print(console, result, table)


def shown_metrics(result: EvalResult) -> list[str]:
    """A benchmark's figures in the order of the table, the publisher's overall one first; without the single styles,
    and without those about the order of a pair where the judge is shown none."""
    hidden = set(ORDER_COLUMNS) if result.kind != "pairwise" else set()
    names = [
        name
        for name, estimate in result.metrics.items()
        if not name.startswith("style_") and not (name in hidden and math.isnan(estimate.value))
    ]
    return list(dict.fromkeys([result.headline, *names]))


def _print(console: Console, result: EvalResult, *tables: Table) -> None:
    unit = "rows" if result.shares is None else "items"
    console.print(
        f"{result.model} on {result.benchmark}: {result.n} {unit}, {result.prompts} prompts, mode {result.mode}",
        markup=False,
        highlight=False,
    )
    for table in tables:
        console.print()
        console.print(table)
    console.print()
    for sentence in sentences(result):
        console.print(sentence, markup=False, highlight=False)


def print_curve(console: Console, points: Sequence[Mapping[str, Any]]) -> None:
    """The figures of each checkpoint, a line each: the headline figure and those beside it that a reader looks for."""
    from rich.table import Table

    headline = points[0]["headline"]
    wanted = (
        headline,
        "accuracy",
        "accuracy_untied",
        "combined_accuracy",
        "mae",
        "kappa",
        "parse_rate",
        "mass",
    )
    names = [name for name in dict.fromkeys(wanted) if name in points[0]["metrics"]]
    names = names[: max(1, (console.width - 6) // 15)]  # all of them are in curve.json
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("step", justify="right", no_wrap=True)
    for name in names:
        table.add_column(TITLES.get(name, name.replace("_", " ")), justify="right", no_wrap=True)
    for point in points:
        cells = ["\n".join(figure(Estimate.from_dict(point["metrics"][name]))) for name in names]
        table.add_row(str(point["step"]), *cells)
    first = points[0]
    console.print(f"{first['benchmark']}: {first['n']} rows or items, mode {first['mode']}", highlight=False)
    console.print()
    console.print(table)


def sentences(result: EvalResult) -> list[str]:
    """What stands below the table: the comparison, the invalid outputs, and every note."""
    found = [headline(result)]
    if (strongest := strongest_baseline(result)) != reference(result):
        found.append(headline(result, strongest))
    if result.shares is None:
        invalid = round(result.metrics["invalid"].value)
        found.append(f"Invalid outputs: {invalid} of {result.n} ({invalid / result.n:.1%}){_kinds(result)}.")
    shown = shown_metrics(result)
    found += [f"{name}: {reason}." for name, reason in reasons(result) if base_metric(name) in shown]
    notes: dict[str, list[str]] = {}
    for baseline in result.baselines:
        if baseline.note:
            notes.setdefault(baseline.note, []).append(baseline.name)
    found += [f"{', '.join(names)}: {note}." for note, names in notes.items()]
    return [*found, *few(result), *result.notes]


def few(result: EvalResult) -> list[str]:
    """A warning where intervals by prompt rest on too few prompts."""
    if result.prompts >= FEW:
        return []
    return [
        f"Only {result.prompts} prompts: resampled from so few, intervals come out too narrow. Take the figures as a trial."
    ]


def reasons(result: EvalResult) -> list[tuple[str, str]]:
    """(figure, why it is undefined or has no interval); of several dimensions one for all that share it."""
    found: dict[tuple[str, str], list[str]] = {}
    parts = dimension_names(result)
    for name, estimate in result.metrics.items():
        if estimate.reason:
            base, _, dimension = name.partition("/") if parts else (name, "", "")
            found.setdefault((base, estimate.reason), []).extend(
                [dimension] if len(parts) > 1 and dimension else []
            )
    return [
        (f"{base}/{', '.join(dimensions)}" if dimensions else base, reason)
        for (base, reason), dimensions in found.items()
    ]


def _kinds(result: EvalResult) -> str:
    """How many answers have no verdict for which reason."""
    problems = [] if result.predictions is None else [p for p in result.predictions.problem if p]
    kinds = Counter(problem.partition(":")[0] for problem in problems)
    return ": " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) if kinds else ""


def cells(metrics: Mapping[str, Estimate], names: tuple[str, ...], n: int) -> list[str]:
    """One text per metric: the value, and its interval on a second line; "-" for one that is not there."""
    shown = []
    for name in names:
        estimate = metrics.get(name)
        if estimate is None:
            shown.append("-")
        elif name == "invalid":
            shown.append(f"{round(estimate.value)}\n{estimate.value / n:.1%}")
        else:
            shown.append("\n".join(figure(estimate)))
    return shown


def figure(estimate: Estimate, digits: int = 3) -> tuple[str, str]:
    """(value, interval) as texts; "-" where there is none."""
    value = "-" if math.isnan(estimate.value) else f"{estimate.value:.{digits}f}"
    if math.isnan(estimate.low):
        return value, "-"
    return value, f"{estimate.low:.{digits}f}..{estimate.high:.{digits}f}"
