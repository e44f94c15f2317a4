"""`evaluate_model`: from a model folder and a file of labelled rows to a result in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import Row
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate.result import EvalResult, build_result, write_result
from rm_gallery.core.evaluate.rows import check_rows, infer_task
from rm_gallery.core.evaluate.run import Journal, model_fingerprint, run_evaluation
from rm_gallery.core.tasks import Task, get_task
from rm_gallery.core.tasks.saved import SavedTask, answer_length, load_saved_task

Progress = Callable[[int], None]
MODES = ("greedy",)


def evaluate_model(
    model: str,
    data: Path,
    out: Path,
    *,
    train: Path | None = None,
    task: str | None = None,
    mode: str = "greedy",
    limit: int | None = None,
    batch_size: int = 16,
    max_new_tokens: int | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    seed: int = 0,
    progress: Callable[[int], AbstractContextManager[Progress | None]] = lambda total: nullcontext(),
) -> EvalResult:
    """Judge the rows of `data`, set the figures beside the trivial baselines, and write all of it to `out`.

    Answers are kept in a journal in `out` as they come; a run that was stopped goes on where it stopped.

    Args:
        train: labelled rows to fit the baselines on.
        task: by default the saved judge's own, else by the columns.
        max_new_tokens: where an answer is cut off; by default as in the judge's training, else 32 (2,048 for a judge
            that reasons).
        seed: of the resampling behind the intervals.
        progress: given the number of rows, a context whose value is called with each number judged.

    Raises:
        ConfigError: the model or the mode does not exist, or the judge's task does not fit the rows.
        DataError: a row has no legal label; refused before the model is loaded.
    """
    if mode not in MODES:
        raise ConfigError(f"--mode {mode} does not exist; the modes are: {', '.join(MODES)}")
    rows = load_rows(data, limit)
    saved = load_saved_task(model)
    judged = _task(model, saved, task, rows)
    train_rows = load_rows(train) if train else None
    for file, labelled in ((data, rows), (train, train_rows or ())):
        try:
            check_rows(judged, labelled)
        except DataError as error:
            raise DataError(f"{file} does not fit the task {judged.name}: {error}") from None

    from rm_gallery.core.judge import LocalJudge

    judge = LocalJudge.load(model, batch_size=batch_size, dtype=dtype, trust_remote_code=trust_remote_code)
    journal = Journal(out / "judgments.jsonl")
    start, known = time.perf_counter(), len(journal.texts)
    with progress(len(rows)) as advance:
        predictions = run_evaluation(
            judged,
            judge,
            rows,
            max_new_tokens=max_new_tokens or answer_length(saved, judged),
            batch_size=batch_size,
            journal=journal,
            fingerprint=f"{model_fingerprint(model)} {dtype}",
            progress=advance,
        )
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
            "dtype": dtype,
            "seed": seed,
            "judging_seconds": round(time.perf_counter() - start, 1),
            "answers_from_an_earlier_run": known,
            "versions": _versions(),
        },
    )
    write_result(out, result)
    journal.delete()
    return result


def _task(model: str, card: SavedTask | None, name: str | None, rows: Sequence[Row]) -> Task[Any]:
    saved = card.task if card else None
    inferred = infer_task(rows)
    if name is None and saved is None:
        return get_task(inferred)
    if saved is not None and name in (None, saved.name):
        if saved.responses != (2 if inferred == "pairwise" else 1):
            raise ConfigError(
                f"{model} was saved as a {saved.name} judge and the rows are {inferred}; give it {saved.name} rows"
            )
        return saved
    return get_task(name or inferred)


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
