"""Putting the report together: which sections there are, which examples are shown, the file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.report import charts
from rm_gallery.core.evaluate.report.inputs import Evaluation, ReportInput
from rm_gallery.core.evaluate.result import REWARD, EvalResult, headline, strongest_baseline
from rm_gallery.core.evaluate.statistics import Estimate, paired_differences
from rm_gallery.core.evaluate.table import TITLES, figure
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
_LESS_IS_BETTER = {"mae", "mae_parsed", "invalid", "flip_rate"}
_NEITHER = {"first_position_rate"}
_SHOWN = 900
_EXAMPLES = 10


def write_report(path: str | Path, content: ReportInput) -> None:
    """Write the report as one self-contained HTML file; the same content gives the same bytes."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(render_report(content), "utf-8")
    temporary.replace(target)


def render_report(content: ReportInput) -> str:
    """The report as HTML. Everything from models and data is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = [_group(f"g{i}", part) for i, part in enumerate(_same_rows(content.evaluations))]
    return environment.get_template("report.html.j2").render(
        title=content.title,
        style=(Path(__file__).parent / "style.css").read_text("utf-8"),
        groups=groups,
        runs=[_run(f"r{i}", run) for i, run in enumerate(content.runs)],
        facts=content.facts,
    )


def _same_rows(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Evaluations of the same rows together, in the order in which they were given."""
    groups: dict[tuple[str, tuple[str, ...]], list[Evaluation]] = {}
    for evaluation in evaluations:
        predictions = evaluation.result.predictions
        key = (
            predictions.kind,
            tuple(sorted(zip(predictions.unique_id, map(str, predictions.truth), strict=True))),
        )
        groups.setdefault((key[0], tuple(map(str, key[1]))), []).append(evaluation)
    return list(groups.values())


def _group(name: str, evaluations: list[Evaluation]) -> dict[str, Any]:
    last = evaluations[-1].result
    before = evaluations[0].result if len(evaluations) > 1 else None
    strongest = strongest_baseline(last)
    systems = [(e.name, e.result.metrics[REWARD], True) for e in evaluations]
    systems += [(b.name, b.metrics[REWARD], False) for b in last.baselines if b.metrics]
    return {
        "benchmark": last.benchmark,
        "rows": len(last.predictions),
        "prompts": len(set(last.predictions.cluster)),
        "verdict": _verdict(last),
        "judge": evaluations[-1].name,
        "sentences": [headline(last)] + ([headline(last, strongest)] if strongest != "best_constant" else []),
        "columns": [(metric, TITLES[metric]) for metric in last.metrics if metric != "parse_rate"],
        "systems": [
            _system(e.name, e.result.model, e.result.metrics, len(last.predictions)) for e in evaluations
        ],
        "baselines": [
            _system(b.name, b.rule, b.metrics, len(last.predictions), b.note) for b in last.baselines
        ],
        "notes": [note for e in evaluations for note in _notes(e)],
        "chart": charts.intervals(systems, "mean reward", f"{name}-systems"),
        "difference": before and _difference(evaluations[0], evaluations[-1]),
        "confusion": [{"name": e.name, **_confusion(e.result.predictions)} for e in evaluations],
        "histograms": [
            charts.histogram(e.result.predictions, e.name, f"{name}-h{i}") for i, e in enumerate(evaluations)
        ],
        "examples": _examples(last.predictions, before.predictions if before else None),
        "before": evaluations[0].name if before else "",
        "after": evaluations[-1].name,
        "made": [(e.name, _made(e.result)) for e in evaluations],
        "pairs": last.predictions.kind == "pairwise",
    }


def _verdict(result: EvalResult) -> tuple[str, str]:
    """(class of the style sheet, sentence): does the judge beat the best constant?"""
    difference = result.baseline("best_constant").difference
    if difference is None or math.isnan(difference.low):
        return "open", "There are too few rows to say whether the judge beats the best constant."
    if difference.low > 0:
        return "yes", "The judge beats the best constant."
    if difference.high < 0:
        return "no", "The judge is worse than answering with a constant."
    return "open", "The judge is not shown to beat the best constant."


def _system(name: str, what: str, metrics: Any, rows: int, note: str = "") -> dict[str, Any]:
    cells = {}
    for metric, estimate in (metrics or {}).items():
        if metric == "invalid":
            cells[metric] = (str(round(estimate.value)), f"{estimate.value / rows:.1%} of rows")
        else:
            value, interval = figure(estimate)
            cells[metric] = (value, interval.replace("..", " to ") if interval != "-" else "")
    return {"name": name, "what": what, "cells": cells, "note": note}


def _notes(evaluation: Evaluation) -> list[str]:
    found = [f"{evaluation.name}: {note}" for note in evaluation.result.notes]
    for metric, estimate in evaluation.result.metrics.items():
        if estimate.reason:
            found.append(f"{evaluation.name}, {TITLES[metric]}: {estimate.reason}.")
    return found


def _difference(before: Evaluation, after: Evaluation) -> list[dict[str, str]]:
    rows = []
    for metric, change in paired_differences(after.result.predictions, before.result.predictions).items():
        old, new = before.result.metrics[metric], after.result.metrics[metric]
        digits = 0 if metric == "invalid" else 3
        interval = "" if math.isnan(change.low) else f"{change.low:+.{digits}f} to {change.high:+.{digits}f}"
        rows.append(
            {
                "title": TITLES[metric],
                "before": figure(old, digits)[0],
                "after": figure(new, digits)[0],
                "change": "-" if math.isnan(change.value) else f"{change.value:+.{digits}f}",
                "interval": interval,
                "reading": _reading(metric, change),
            }
        )
    return rows


def _reading(metric: str, change: Estimate) -> str:
    if math.isnan(change.low) or metric in _NEITHER:
        return ""
    if change.low <= 0 <= change.high:
        return "not shown"
    return "better" if (change.value < 0) == (metric in _LESS_IS_BETTER) else "worse"


def _confusion(predictions: Predictions) -> dict[str, Any]:
    """Rows by label × verdict; the shade of a cell is its share of the label's rows."""
    columns: list[Any] = [*predictions.labels, None]
    rows = []
    for label in predictions.labels:
        given = [p for t, p in zip(predictions.truth, predictions.predicted, strict=True) if t == label]
        counts = [sum(p == column for p in given) for column in columns]
        cells = [
            {"count": n, "shade": round(n / max(len(given), 1), 2), "right": column == label}
            for n, column in zip(counts, columns, strict=True)
        ]
        rows.append({"label": label, "cells": cells, "total": len(given)})
    return {"columns": ["invalid" if column is None else column for column in columns], "rows": rows}


def _examples(after: Predictions, before: Predictions | None) -> list[dict[str, Any]]:
    """Up to ten rows: right ones, one a label where there is one, then the worst disagreements.

    Drawn by the hash of the row's name, so nobody picked them and the same evaluation shows the same ones.
    """
    rank = sorted(range(len(after)), key=lambda i: hashlib.sha256(after.unique_id[i].encode()).hexdigest())
    right: list[int] = []
    for label in after.labels:
        right += [i for i in rank if after.truth[i] == label == after.predicted[i]][:1]
    right = right[: _EXAMPLES // 2 - 1]
    wrong = [i for i in rank if after.predicted[i] is not None and after.truth[i] != after.predicted[i]]
    wrong.sort(key=lambda i: -_error(after, i))
    invalid = [i for i in rank if after.predicted[i] is None][:2]
    worst = wrong[: _EXAMPLES - len(right) - len(invalid)]
    earlier = before.aligned_to(after) if before is not None else None
    kinds = [(i, "right") for i in right] + [(i, "worst disagreement") for i in worst]
    return [
        _example(after, earlier, i, kind) for i, kind in [*kinds, *((i, "invalid output") for i in invalid)]
    ]


def _error(predictions: Predictions, i: int) -> float:
    """How far verdict and label lie apart; for pairs the opposite preference is further than a tie."""
    truth, predicted = predictions.truth[i], predictions.predicted[i]
    if isinstance(truth, int) and isinstance(predicted, int):
        return abs(truth - predicted)
    return 1.0 if "tie" in (truth, predicted) else 2.0


def _example(after: Predictions, before: Predictions | None, i: int, kind: str) -> dict[str, Any]:
    def verdict(predictions: Predictions) -> str:
        return "invalid" if predictions.predicted[i] is None else str(predictions.predicted[i])

    return {
        "id": after.unique_id[i],
        "kind": kind,
        "query": _cut(after.query[i]),
        "response": _cut(after.response[i]),
        "response_b": _cut(after.response_b[i]),
        "truth": after.truth[i],
        "before": verdict(before) if before is not None else "",
        "after": verdict(after),
        "text": _cut(after.text[i]),
        "text_before": _cut(before.text[i]) if before is not None else "",
    }


def _cut(text: str) -> str:
    left = len(text) - _SHOWN
    return text if left <= 0 else f"{text[:_SHOWN]} […] ({left:,} more characters)"


def _made(result: EvalResult) -> list[tuple[str, str]]:
    found = [("model", result.model), ("benchmark", result.benchmark), ("mode", result.mode)]
    for name, value in result.made.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items())
        if value is not None:
            found.append((name.replace("_", " "), str(value)))
    return found


def _run(name: str, run: TrainingRun) -> dict[str, Any]:
    # the loss of GRPO says nothing by itself: its gradient does
    titles = _CURVES if run.series("reward/mean", "train")[0] else {**_SUPERVISED, **_CURVES}
    drawn = [
        charts.curve(run, metric, title, f"{name}-{metric.replace('/', '-')}")
        for metric, title in titles.items()
    ]
    if charts.MISSING in drawn:
        drawn = [charts.MISSING]
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
    return {
        "name": run.name,
        "charts": [chart for chart in drawn if chart],
        "made": made,
        "config": run.config,
    }
