"""`rmg eval`: measure a judge on labelled rows, beside the predictors that cost nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rm_gallery.core.errors import ConfigError

if TYPE_CHECKING:
    from rm_gallery.core.tasks import Task

_MODES = ("greedy",)


def evaluate(
    model: str = typer.Option(..., help="Folder of the model."),
    data: Path = typer.Option(..., help="Labelled rows: .parquet, .jsonl or .jsonl.gz."),
    train: Path | None = typer.Option(
        None, help="Labelled rows to fit the trivial baselines on; never the evaluated ones."
    ),
    task: str | None = typer.Option(
        None,
        help="pointwise, pairwise or module.path:Class. Default: the saved judge's, else by the columns.",
    ),
    mode: str = typer.Option("greedy", help="How a verdict is taken: greedy."),
    out: Path | None = typer.Option(None, help="Output folder. Default: runs/eval/<model>-<data>."),
    limit: int | None = typer.Option(None, min=1, help="Only the first N rows."),
    batch_size: int = typer.Option(16, min=1, help="Questions asked at a time."),
    max_new_tokens: int | None = typer.Option(
        None, min=1, help="Where an answer is cut off. Default: 32, or 2048 for a judge that reasons."
    ),
    seed: int = typer.Option(0, help="Seed of the resampling behind the intervals."),
    as_json: bool = typer.Option(False, "--json", help="Print metrics.json instead of the table."),
) -> None:
    """Measure a judge on labelled rows, beside the predictors that cost nothing.

    Writes metrics.json, summary.json and predictions.parquet under --out. A run that was stopped goes on where
    it stopped when the same command is given again.

    Example:

    rmg eval --model runs/judge --data data/test.parquet --train data/train.parquet
    """
    from rm_gallery.core.evaluate.result import build_result, write_result
    from rm_gallery.core.evaluate.rows import check_rows, load_rows
    from rm_gallery.core.evaluate.run import Journal, model_fingerprint, run_evaluation

    if mode not in _MODES:
        raise ConfigError(f"--mode {mode} does not exist; the modes are: {', '.join(_MODES)}")
    rows = load_rows(data, limit)
    judged = _task(model, task, rows)
    check_rows(judged, rows)
    train_rows = load_rows(train) if train else None
    check_rows(judged, train_rows or ())
    folder = out or Path("runs/eval") / f"{Path(model).name}-{data.name.split('.')[0]}"

    from rm_gallery.core.judge import LocalJudge

    judge = LocalJudge.load(model, batch_size=batch_size)
    reasons = judged.think or judge.reasoning_model
    journal = Journal(folder / "judgments.jsonl")
    start, known = time.perf_counter(), len(journal.texts)
    try:
        with _bar(len(rows), quiet=as_json) as progress:
            predictions = run_evaluation(
                judged,
                judge,
                rows,
                max_new_tokens=max_new_tokens or (2048 if reasons else 32),
                batch_size=batch_size,
                journal=journal,
                fingerprint=model_fingerprint(model),
                progress=progress,
            )
    except KeyboardInterrupt:
        typer.echo(
            f"stopped with {len(journal.texts)} answers kept; the same command goes on from there", err=True
        )
        raise typer.Exit(130) from None
    result = build_result(
        judged,
        predictions,
        rows,
        benchmark=data.name.split(".")[0],
        model=model,
        mode=mode,
        train=train_rows,
        seed=seed,
        notes=[f"Only the first {limit} rows of {data.name} were evaluated."] if limit else [],
        made={
            "data": str(data),
            "train": str(train) if train else None,
            "seed": seed,
            "judging_seconds": round(time.perf_counter() - start, 1),
            "answers_from_an_earlier_run": known,
            "versions": _versions(),
        },
    )
    write_result(folder, result)
    journal.delete()
    if as_json:
        typer.echo(json.dumps(result.to_metrics_json(), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from rm_gallery.core.evaluate.table import print_result

    print_result(Console(), result)
    typer.echo(f"\nWritten to {folder}. Next:  rmg report {folder} --out {folder / 'report.html'}")


def _task(model: str, name: str | None, rows: list[dict[str, Any]]) -> Task[Any]:
    from rm_gallery.core.evaluate.rows import infer_task
    from rm_gallery.core.tasks import get_task
    from rm_gallery.core.tasks.saved import load_saved_task

    card = load_saved_task(model)
    saved = card.task if card else None
    inferred = infer_task(rows)
    if name is None and saved is None:
        return get_task(inferred)
    if saved is not None and name in (None, saved.name):
        if {saved.name, inferred} == {"pointwise", "pairwise"}:
            raise ConfigError(
                f"{model} was saved as a {saved.name} judge and the rows are {inferred}; give it {saved.name} rows"
            )
        return saved
    return get_task(name or inferred)


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """A progress bar on stderr where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("judging", total=total)
        yield lambda count: bar.advance(task, count)


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
