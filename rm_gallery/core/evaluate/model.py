"""From a model, or its recorded verdicts, and a file of labelled rows or of a benchmark to a result in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import Row
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate.benchmarks.answers import write_answers
from rm_gallery.core.evaluate.benchmarks.ask import Questions, judged, questions
from rm_gallery.core.evaluate.benchmarks.base import Benchmark, Item, get_benchmark
from rm_gallery.core.evaluate.benchmarks.labelled import LabelledPairs
from rm_gallery.core.evaluate.benchmarks.recorded import read_recorded
from rm_gallery.core.evaluate.build import build_benchmark_result, build_result
from rm_gallery.core.evaluate.predictions import score_outputs
from rm_gallery.core.evaluate.result import EvalResult, write_result
from rm_gallery.core.evaluate.rows import check_rows, infer_task
from rm_gallery.core.judge.answer import FAILED, MODES, Answer
from rm_gallery.core.judge.journal import Journal, ask_all
from rm_gallery.core.judge.subject import Asking, Candidate
from rm_gallery.core.tasks import Task

Progress = Callable[[int], AbstractContextManager[Callable[[int], None] | None]]
JOURNAL = "judgments.jsonl"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """How an evaluation is done.

    Attributes:
        how: the mode, and what belongs to it.
        task: as `load_task` takes it; by default the saved judge's own, else by the columns (of a benchmark: pairwise).
        limit: only the first so many rows or items.
        seed: of the resampling behind the intervals.
        progress: given the number of questions, a context whose value is called with each number answered.
    """

    how: Asking = field(default_factory=Asking)
    task: str | None = None
    limit: int | None = None
    seed: int = 0
    progress: Progress = lambda total: nullcontext()

    def __post_init__(self) -> None:
        if self.how.mode not in MODES:
            raise ConfigError(f"--mode is {self.how.mode!r}; the modes are {', '.join(MODES)}")


def evaluate_data(
    model: Candidate, data: Path, out: Path, settings: Settings | None = None, *, train: Path | None = None
) -> EvalResult:
    """Judge the labelled rows of `data`, set the figures beside the trivial baselines, and write all of it to `out`.

    A judge of single responses, or a scalar model, on pairs ranks their responses; a scalar model on rated responses
    ranks those to the same prompt. Answers are kept in a journal in `out` as they come; a run that was stopped goes on
    where it stopped.

    Args:
        model: loaded once every label has been checked.
        train: labelled rows to fit the baselines on.

    Raises:
        ConfigError: the mode does not exist for this judge, or its task does not fit the rows.
        DataError: a row has no legal label; refused before the model is loaded.
    """
    settings = settings or Settings()
    rows = load_rows(data, settings.limit)
    name, notes = data.name.split(".")[0], []
    if settings.limit is not None:
        notes.append(f"Only the first {settings.limit} rows of {data.name} were evaluated.")
    inferred = infer_task(rows)
    task = model.task(settings.task, inferred)
    if task is None or task.responses != (2 if inferred == "pairwise" else 1):
        if task is not None and task.responses == 2:
            raise ConfigError(
                f"{model.name} is a {task.name} judge and the rows of {data} are rated responses; give it pairs"
            )
        items = LabelledPairs().of_rows(rows)
        return _on_items(
            model, LabelledPairs(), items, out, settings, task=task, notes=notes, path=data, name=name
        )
    return _on_rows(model, rows, out, settings, task=task, name=name, path=data, train=train, notes=notes)


def evaluate_benchmark(
    model: Candidate,
    benchmark: str,
    path: Path,
    out: Path,
    settings: Settings | None = None,
    *,
    train: Path | None = None,
) -> EvalResult:
    """Judge a benchmark's items: a judge of pairs in both orders, any other each response once.

    A judge that rates is asked for ratings where the benchmark has them. Args and raises: as `evaluate_data`.
    """
    settings = settings or Settings()
    found = get_benchmark(benchmark)
    task = model.task(settings.task, "pairwise")
    rated = found.rows(path) if task is not None and task.responses == 1 else None
    if rated is not None and task is not None:
        rows, notes = _limited(rated, settings.limit)
        return _on_rows(
            model, rows, out, settings, task=task, name=found.name, path=path, train=train, notes=notes
        )
    items, notes = _limited(found.load(path), settings.limit)
    return _on_items(model, found, items, out, settings, task=task, notes=notes, path=path)


def evaluate_recorded(
    benchmark: str, path: Path, judgments: Path, out: Path, *, limit: int | None = None, seed: int = 0
) -> EvalResult:
    """Score recorded verdicts on a benchmark; no model is asked.

    Raises:
        DataError: a file is damaged, or the verdicts are about other items.
    """
    found = get_benchmark(benchmark)
    items, notes = _limited(found.load(path), limit)
    recorded = read_recorded(items, judgments)
    result = build_benchmark_result(
        found,
        items,
        judged(items, recorded.questions, recorded.answers, None),
        model=judgments.name,
        mode="recorded",
        kind="pairwise" if recorded.questions.responses == 2 else "scalar",
        seed=seed,
        notes=[*notes, *recorded.notes, *_counted(recorded.answers)],
        made={"data": str(path), "judgments": str(judgments), "seed": seed, "versions": _versions()},
    )
    out.mkdir(parents=True, exist_ok=True)
    write_answers(out / "predictions.parquet", items, recorded.questions, recorded.answers, None)
    write_result(out, result)
    return result


def _on_rows(
    model: Candidate,
    rows: Sequence[Row],
    out: Path,
    settings: Settings,
    *,
    task: Task[Any],
    name: str,
    path: Path,
    train: Path | None = None,
    notes: Sequence[str],
) -> EvalResult:
    train_rows = load_rows(train) if train else None
    for file, labelled in ((path, rows), (train, train_rows or ())):
        try:
            check_rows(task, labelled)
        except DataError as error:
            raise DataError(f"{file} does not fit the task {task.name}: {error}") from None
    conversations = [task.messages(row) for row in rows]
    answers, journal, made = _ask(model, task, conversations, out, settings)
    result = build_result(
        task,
        score_outputs(task, rows, answers),
        rows,
        benchmark=name,
        model=model.name,
        mode=settings.how.mode,
        train=train_rows,
        seed=settings.seed,
        notes=[*notes, *_failures(model, answers)],
        made={"data": str(path), "train": str(train) if train else None, **made},
    )
    write_result(out, result)
    _finish(journal, model, answers)
    return result


def _on_items(
    model: Candidate,
    benchmark: Benchmark,
    items: Sequence[Item],
    out: Path,
    settings: Settings,
    *,
    task: Task[Any] | None,
    notes: Sequence[str],
    path: Path,
    name: str = "",
) -> EvalResult:
    asked: Questions = questions(items, 1 if task is None else task.responses)
    conversations = asked.conversations(task)
    answers, journal, made = _ask(model, task, conversations, out, settings)
    result = build_benchmark_result(
        benchmark,
        items,
        judged(items, asked, answers, task),
        model=model.name,
        mode="score" if task is None else settings.how.mode,
        name=name or benchmark.name,
        kind="scalar" if task is None else "pairwise" if task.responses == 2 else "pointwise",
        seed=settings.seed,
        notes=[*notes, *_counted(answers), *_failures(model, answers)],
        made={"data": str(path), "questions": len(answers), **made},
    )
    write_answers(out / "predictions.parquet", items, asked, answers, task)
    write_result(out, result)
    _finish(journal, model, answers)
    return result


def _finish(journal: Journal, model: Candidate, answers: Sequence[Answer]) -> None:
    """Where some failures pass, what was answered is kept, for the same command to ask only the rest."""
    if _failed(model, answers):
        journal.close()
    else:
        journal.delete()


def _failures(model: Candidate, answers: Sequence[Answer]) -> list[str]:
    failed = _failed(model, answers)
    said = f"{failed} of {len(answers)} questions failed at the endpoint: the same command asks those again."
    return [said] if failed else []


def _failed(model: Candidate, answers: Sequence[Answer]) -> int:
    """How many questions failed in a way that passes: an endpoint's, for a model in this process would fail again."""
    return sum(answer.problem.startswith(FAILED) for answer in answers) if model.is_endpoint else 0


def _ask(
    model: Candidate, task: Task[Any] | None, conversations: Sequence[Any], out: Path, settings: Settings
) -> tuple[list[Answer], Journal, dict[str, Any]]:
    """The answers, the journal that holds them until they are written, and how they were come by."""
    journal = Journal(out / JOURNAL)  # before the model is loaded: another evaluation may be writing there
    try:
        ask, identity = model.open().asking(task, settings.how)
        start, known = time.perf_counter(), len(journal.answers)
        with settings.progress(len(conversations)) as advance:
            answers = ask_all(ask, conversations, identity=identity, journal=journal, progress=advance)
    except BaseException:
        journal.close()
        raise
    return (
        answers,
        journal,
        {
            "dtype": model.dtype,
            "seed": settings.seed,
            "judging_seconds": round(time.perf_counter() - start, 1),
            "answers_from_an_earlier_run": known,
            "versions": _versions(),
        },
    )


def _counted(answers: Sequence[Answer]) -> list[str]:
    """A sentence on the answers without a verdict, by the first word of their problem."""
    problems = [answer.problem.partition(":")[0] for answer in answers if answer.problem]
    kinds = [f"{problems.count(kind)} {kind}" for kind in sorted(set(problems))]
    return [f"Of {len(answers)} answers {', '.join(kinds)}."] if kinds else []


def _limited(items: Sequence[T], limit: int | None) -> tuple[Sequence[T], list[str]]:
    if limit is None or limit >= len(items):
        return items, []
    return items[:limit], [f"Only the first {limit} of {len(items)} items were evaluated."]


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("rm-gallery", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
