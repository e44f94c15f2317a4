"""What a report is made of, and reading it from folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.curve import CURVE
from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.report.answers import Scored, read_answers
from rm_gallery.core.evaluate.result import EvalResult, read_result, reference, strongest_baseline
from rm_gallery.core.evaluate.statistics import Estimate
from rm_gallery.core.train.log import TrainingRun, read_log


@dataclass(frozen=True)
class Evaluation:
    """A judge's result under the name it has in the report (`before training`).

    `answers` are those to a benchmark's questions; without them the report has the figures only. Of labelled rows the
    result itself holds them.
    """

    name: str
    result: EvalResult
    answers: Predictions | Scored | None = None

    @property
    def observed(self) -> Predictions | Scored | None:
        """Answer by answer what the judge said, where it is known."""
        return self.answers if self.result.predictions is None else self.result.predictions


@dataclass(frozen=True)
class Curve:
    """Figures against steps, as `rmg eval RUN --every-checkpoint` left them.

    Attributes:
        run: the run's name.
        benchmark, mode, n: what was evaluated, alike at every step.
        headline: the metric by which judges are compared.
        points: (step, figures), by step.
        baselines: name → figures on the same rows of the one or two trivial predictors that are drawn.
    """

    run: str
    benchmark: str
    mode: str
    n: int
    headline: str
    points: tuple[tuple[int, Mapping[str, Estimate]], ...]
    baselines: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportInput:
    """Everything a report shows.

    Evaluations of the same rows, or of the same items of a benchmark, are compared: the first is "before", the last is
    "after". Others get a section of their own.
    """

    evaluations: Sequence[Evaluation] = ()
    runs: Sequence[TrainingRun] = ()
    title: str = "How good is the judge?"
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further lines for "how it was made"."""
    curves: Sequence[Curve] = ()
    texts: bool = True
    """Show what was judged and written; without, a report of data that may not be passed on can be."""


def read_inputs(folders: Sequence[str | Path]) -> ReportInput:
    """Read output folders of `rmg eval` and of training, in the order given.

    A run whose checkpoints were evaluated (`eval/*/curve.json`) brings these curves, and its first and last checkpoint
    as evaluations.

    Raises:
        DataError: a folder holds neither; names it, and its subfolders that do.
    """
    evaluations: list[Evaluation] = []
    runs: list[TrainingRun] = []
    curves: list[Curve] = []
    for folder, name in _names([Path(folder) for folder in folders]):
        found = False
        if _is_evaluation(folder):
            evaluations.append(_evaluation(folder, name))
            found = True
        if (folder / "metrics.jsonl").is_file():
            runs.append(TrainingRun(name, read_log(folder / "metrics.jsonl"), _config(folder)))
            found = True
        for curve, ends in _curves(folder, name):
            curves.append(curve)
            evaluations += ends
            found = True
        if not found:
            raise DataError(_nothing_in(folder))
    return ReportInput(evaluations, runs, curves=curves)


def _evaluation(folder: Path, name: str) -> Evaluation:
    result = read_result(folder)
    if result.shares is None:
        return Evaluation(name, result)
    return Evaluation(name, result, read_answers(folder / "predictions.parquet", result.kind))


def _curves(folder: Path, name: str) -> list[tuple[Curve, list[Evaluation]]]:
    """A run's curves, each with the first and the last of its evaluations where their folders are there."""
    files = [file for file in (folder / CURVE, *sorted(folder.glob(f"eval/*/{CURVE}"))) if file.is_file()]
    read = [_curve(file, name) for file in files]
    benchmarks = [curve.benchmark for curve in read]
    found = []
    for file, curve in zip(files, read, strict=True):
        if benchmarks.count(curve.benchmark) > 1:  # the same rows in two modes, say
            curve = replace(curve, run=f"{name} {file.parent.name}")
        steps = dict.fromkeys((curve.points[0][0], curve.points[-1][0]))
        kept = [(file.parent / f"step-{step}", f"{curve.run} step {step}") for step in steps]
        ends = [_evaluation(inner, title) for inner, title in kept if _is_evaluation(inner)]
        found.append((replace(curve, baselines=_levels(ends[-1].result)) if ends else curve, ends))
    return found


def _curve(file: Path, run: str) -> Curve:
    try:
        points: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
        figures = tuple(
            (
                int(point["step"]),
                {key: Estimate.from_dict(found) for key, found in point["metrics"].items()},
            )
            for point in points
        )
        told = {key: points[-1][key] for key in ("benchmark", "mode", "n", "headline")}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{file} is not a curve written by rmg eval --every-checkpoint: {error!r}") from error
    return Curve(run, points=figures, **told)


def _levels(result: EvalResult) -> dict[str, Mapping[str, Estimate]]:
    """The figures of the baseline that a judge is to beat first, and of the strongest one."""
    names = dict.fromkeys((reference(result), strongest_baseline(result)))
    return {name: metrics for name in names if (metrics := result.baseline(name).metrics) is not None}


def _is_evaluation(folder: Path) -> bool:
    return (folder / "metrics.json").is_file() or (folder / "predictions.parquet").is_file()


def _has_something(folder: Path) -> bool:
    return _is_evaluation(folder) or any((folder / name).is_file() for name in ("metrics.jsonl", CURVE))


def _config(folder: Path) -> str:
    for name in ("config.yaml", "config.yml", "config.json"):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8")
    return ""


def _names(folders: list[Path]) -> list[tuple[Path, str]]:
    """Each folder with its last part as its name, or its whole path where two share that."""
    short = [folder.resolve().name for folder in folders]
    return [
        (folder, name if short.count(name) == 1 else str(folder))
        for folder, name in zip(folders, short, strict=True)
    ]


def _nothing_in(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    usable = [str(inner) for inner in sorted(folder.iterdir()) if inner.is_dir() and _has_something(inner)]
    hint = f"; give one of its subfolders: {' '.join(usable)}" if usable else ""
    return (
        f"{folder} holds neither an evaluation (metrics.json, predictions.parquet) nor a training log "
        f"(metrics.jsonl){hint}"
    )
