"""The table that `rmg eval` prints: one row a system, the figure above its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rm_gallery.core.evaluate.result import EvalResult, headline, strongest_baseline
from rm_gallery.core.evaluate.statistics import Estimate

if TYPE_CHECKING:
    from rich.console import Console

TITLES = {
    "reward": "reward",
    "accuracy": "accuracy",
    "within_1": "within 1",
    "mae": "MAE",
    "mae_parsed": "MAE parsed",
    "kappa": "kappa",
    "spearman": "Spearman",
    "parse_rate": "parsed",
    "invalid": "invalid",
    "accuracy_untied": "untied acc.",
    "flip_rate": "flips",
    "first_position_rate": "says A",
    "macro_f1": "macro F1",
}
_NARROW = {
    "pointwise": ("reward", "accuracy", "mae", "kappa", "invalid"),
    "pairwise": ("reward", "accuracy_untied", "flip_rate", "first_position_rate", "invalid"),
}
_WIDE = 130


def print_result(console: Console, result: EvalResult) -> None:
    """Print the table, the comparison with the best constant, and what a reader must know about them.

    A narrow terminal gets the main columns; all of them are in metrics.json.
    """
    from rich.table import Table

    kind = result.predictions.kind
    names = tuple(result.metrics) if console.width >= _WIDE else _NARROW[kind]
    names = tuple(name for name in names if name != "parse_rate")  # the invalid column says the same
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in names:
        table.add_column(TITLES[name], justify="right", no_wrap=True)
    n = len(result.predictions)
    table.add_row("judge", *cells(result.metrics, names, n), style="bold")
    for found in result.baselines:
        shown = ["-"] * len(names) if found.metrics is None else cells(found.metrics, names, n)
        table.add_row(found.name, *shown, style="dim")
    prompts = len(set(result.predictions.cluster))
    console.print(
        f"{result.model} on {result.benchmark}: {n} rows, {prompts} prompts, mode {result.mode}",
        markup=False,
        highlight=False,
    )
    console.print()
    console.print(table)
    console.print()
    for sentence in sentences(result):
        console.print(sentence, markup=False, highlight=False)


def sentences(result: EvalResult) -> list[str]:
    """What stands below the table: the comparison, the invalid outputs, and every note."""
    invalid, n = round(result.metrics["invalid"].value), len(result.predictions)
    found = [headline(result)]
    if (strongest := strongest_baseline(result)) != "best_constant":
        found.append(headline(result, strongest))
    found.append(f"Invalid outputs: {invalid} of {n} ({invalid / n:.1%}).")
    found += [f"{name}: {e.reason}." for name, e in result.metrics.items() if e.reason]
    notes: dict[str, list[str]] = {}
    for baseline in result.baselines:
        if baseline.note:
            notes.setdefault(baseline.note, []).append(baseline.name)
    found += [f"{', '.join(names)}: {note}." for note, names in notes.items()]
    return [*found, *result.notes]


def cells(metrics: Mapping[str, Estimate], names: tuple[str, ...], n: int) -> list[str]:
    """One text per metric: the value, and its interval on a second line."""
    shown = []
    for name in names:
        estimate = metrics[name]
        if name == "invalid":
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
