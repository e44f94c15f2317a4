"""The reward that verl loads by path: `reward.custom_reward_function.path=reward_fn.py`."""

from __future__ import annotations

from typing import Any

from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import PointwiseTask

# max_error is the width of HelpSteer2's scale, 0 to 4; k is how fast the reward falls with the error
TASK = PointwiseTask(RewardConfig(name="exp_decay", k=2.0, max_error=4))


def pointwise_reward(predicted_score: int, true_score: int | None) -> float:
    """exp(-k · |predicted - true| / max_error), and 0.0 without a truth (which `compute_score` refuses)."""
    return 0.0 if true_score is None else TASK.reward(predicted_score, true_score)


calculate_helpfulness_reward = pointwise_reward


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """See `Task.compute_score`: the same keys and types whether or not the output holds a verdict."""
    return TASK.compute_score(data_source, solution_str, ground_truth, extra_info, **kwargs)
