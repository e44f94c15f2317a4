"""The reward that verl loads by path, of the task that the run's card names."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.tasks import Task
from rm_gallery.core.tasks.saved import load_saved_task


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    *,
    card: str,
    **_: Any,
) -> dict[str, Any]:
    """`Task.compute_score` of the task in the folder `card`.

    Raises:
        ConfigError: there is no card in that folder.
        DataError: the ground truth is missing or not legal.
    """
    return _task(card).compute_score(data_source, solution_str, ground_truth, extra_info)


@lru_cache(maxsize=1)
def _task(card: str) -> Task[Any]:
    saved = load_saved_task(card, trust_remote_code=True)
    if saved is None:
        raise ConfigError(f"{card} holds no card rm_gallery.json: it must be a folder that every node sees")
    return saved.task
