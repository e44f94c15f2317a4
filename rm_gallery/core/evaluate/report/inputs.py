"""What a report is made of, and reading it from folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.result import EvalResult, read_result
from rm_gallery.core.train.log import TrainingRun, read_log


@dataclass(frozen=True)
class Evaluation:
    """A judge's result under the name it has in the report (`before training`)."""

    name: str
    result: EvalResult


@dataclass(frozen=True)
class ReportInput:
    """Everything a report shows.

    Evaluations of the same rows are compared: the first is "before", the last is "after". Those of other rows
    get a section of their own.
    """

    evaluations: Sequence[Evaluation] = ()
    runs: Sequence[TrainingRun] = ()
    title: str = "How good is the judge?"
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further lines for "how it was made"."""


def read_inputs(folders: Sequence[str | Path]) -> ReportInput:
    """Read output folders of `rmg eval` and of training, in the order given.

    Raises:
        DataError: a folder holds neither; names it, and its subfolders that do.
    """
    evaluations, runs = [], []
    names = _names([Path(folder) for folder in folders])
    for folder, name in names:
        found = False
        if _is_evaluation(folder):
            evaluations.append(Evaluation(name, read_result(folder)))
            found = True
        if (folder / "metrics.jsonl").is_file():
            runs.append(TrainingRun(name, read_log(folder / "metrics.jsonl"), _config(folder)))
            found = True
        if not found:
            raise DataError(_nothing_in(folder))
    return ReportInput(evaluations, runs)


def _is_evaluation(folder: Path) -> bool:
    return (folder / "metrics.json").is_file() or (folder / "predictions.parquet").is_file()


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
    usable = [
        str(inner)
        for inner in sorted(folder.iterdir())
        if inner.is_dir() and (_is_evaluation(inner) or (inner / "metrics.jsonl").is_file())
    ]
    hint = f"; give one of its subfolders: {' '.join(usable)}" if usable else ""
    return (
        f"{folder} holds neither an evaluation (metrics.json, predictions.parquet) nor a training log "
        f"(metrics.jsonl){hint}"
    )
