"""Putting the report together: which sections there are, and the file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from rm_gallery.core.evaluate.report import charts, sentences, systems, verdicts
from rm_gallery.core.evaluate.report.cases import LISTED, disagreements
from rm_gallery.core.evaluate.report.inputs import Evaluation, ReportInput
from rm_gallery.core.evaluate.report.training import curve_sections, run_section
from rm_gallery.core.evaluate.result import EvalResult, strongest_baseline

_HERE = Path(__file__).parent


def write_report(path: str | Path, content: ReportInput) -> None:
    """Write the report as one self-contained HTML file; the same content gives the same bytes."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(render_report(content), "utf-8")
    temporary.replace(target)


def render_report(content: ReportInput) -> str:
    """The report as HTML. Everything from models and data is escaped, and no script runs but the report's own."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_HERE / "filter.js").read_text("utf-8")
    groups = [
        _group(f"g{i}", part, texts=content.texts)
        for i, part in enumerate(systems.same_rows(content.evaluations))
    ]
    return environment.get_template("report.html.j2").render(
        title=content.title,
        style=(_HERE / "style.css").read_text("utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        groups=groups,
        curves=curve_sections(content.curves),
        runs=[run_section(f"r{i}", run) for i, run in enumerate(content.runs)],
        facts=content.facts,
        listed=LISTED,
    )


def _group(name: str, evaluations: list[Evaluation], *, texts: bool) -> dict[str, Any]:
    compared = systems.Systems(evaluations)
    last = compared.last
    metrics, orders = compared.metrics()
    headline = systems.title(compared.headline, last)
    shown = [
        (column.name, column.metrics[compared.headline], column.index is not None)
        for column in compared.columns
        if column.metrics and compared.headline in column.metrics
    ]
    return {
        "id": name,
        "benchmark": last.benchmark,
        "unit": "rows" if last.shares is None else "items",
        "n": last.n,
        "prompts": last.prompts,
        "verdict": sentences.verdict(
            last, f"the judge {evaluations[-1].name}" if len(evaluations) > 1 else "the judge"
        ),
        "notes": sentences.notes(evaluations),
        "judges": [_judge(evaluation) for evaluation in evaluations],
        "headline": headline,
        "chart": charts.intervals(shown, headline, f"{name}-systems"),
        "columns": [column for column in compared.columns if column.metrics is not None],
        "absent": [column for column in compared.columns if column.metrics is None],
        "table": systems.table(compared, metrics),
        "orders": systems.table(compared, orders),
        "dimensions": systems.by_dimension(compared),
        "against": systems.against_baselines(compared),
        "difference": systems.last_to_first(compared),
        "outcomes": verdicts.outcomes(evaluations),
        "pictures": verdicts.pictures(evaluations, name),
        "styles": verdicts.style_maps(evaluations),
        "lists": disagreements(evaluations, texts=texts),
        "glance": [_glance(evaluation) for evaluation in evaluations],
    }


def _glance(evaluation: Evaluation) -> dict[str, Any]:
    """A judge's line in the table of all comparisons: beside the strongest of what costs nothing."""
    result = evaluation.result
    strongest = result.baseline(strongest_baseline(result))
    return {
        "name": evaluation.name,
        "figure": systems.texts(result.metrics[result.headline]),
        "missing": verdicts.missing_share(evaluation),
        "baseline": strongest.name,
        "headline": systems.title(result.headline, result),
        "level": systems.texts(level)
        if (level := (strongest.metrics or {}).get(result.headline))
        else ("-", ""),
        "difference": strongest.difference and systems.change(result.headline, strongest.difference),
    }


def _judge(evaluation: Evaluation) -> dict[str, Any]:
    result = evaluation.result
    return {
        "name": evaluation.name,
        "sentences": sentences.sentences(evaluation),
        "scores": result.kind != "pairwise",
        "made": _made(result),
    }


def _made(result: EvalResult) -> list[tuple[str, str]]:
    found = [("model", result.model), ("benchmark", result.benchmark), ("mode", result.mode)]
    for name, value in result.made.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items())
        if value is not None:
            found.append((name.replace("_", " "), str(value)))
    return found
