"""What the rows ask for: which task, and whether each can be asked and scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rm_gallery.core.data.samples import Row, response_count
from rm_gallery.core.evaluate.predictions import task_kind
from rm_gallery.core.tasks import Task


def infer_task(rows: Sequence[Row]) -> str:
    """`pairwise` where the rows hold two responses, else `pointwise`."""
    return "pairwise" if response_count(rows[0]) == 2 else "pointwise"


def check_rows(task: Task[Any], rows: Sequence[Row]) -> None:
    """Build every question and read every label once, so that nothing fails after the model has loaded.

    Raises:
        ConfigError: the task's verdicts are neither whole scores nor preferences.
        DataError: a row has no query, no response, or a missing or bad label; names it.
    """
    task_kind(task)
    for row in rows:
        task.messages(row)
        task.truth(row)
