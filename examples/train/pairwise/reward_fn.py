"""The reward that verl loads by path: `reward.custom_reward_function.path=reward_fn.py`."""

from __future__ import annotations

from typing import Any

from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import PairwiseTask
from rm_gallery.core.templates import extract_preference_from_response

__all__ = ["compute_score", "extract_preference_from_response"]

# 1.0 for the right preference, else 0.0; `tie` pays for a verdict or a truth that is a tie
TASK = PairwiseTask(RewardConfig(name="preference", tie=0.0))


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """See `PairwiseTask.compute_score`: the same keys and types whether or not the output holds a verdict."""
    return TASK.compute_score(data_source, solution_str, ground_truth, extra_info, **kwargs)
