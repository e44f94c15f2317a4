"""HelpSteer2's two recipes as functions: what `reward_fn.py` of the examples and the cookbook hand to an engine."""

from __future__ import annotations

from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask

# max_error is the width of HelpSteer2's scale, 0 to 4; k is how fast the reward falls with the error
POINTWISE = PointwiseTask(RewardConfig(name="exp_decay", k=2.0, max_error=4))
# 1.0 for the right preference, else 0.0; `tie` pays for a verdict or a truth that is a tie
PAIRWISE = PairwiseTask(RewardConfig(name="preference", tie=0.0))


def pointwise_reward(predicted_score: int, true_score: int | None) -> float:
    """exp(-k · |predicted - true| / max_error), and 0.0 without a truth (which `compute_score` refuses).

    >>> pointwise_reward(3, 3), pointwise_reward(3, None)
    (1.0, 0.0)
    """
    return 0.0 if true_score is None else POINTWISE.reward(predicted_score, true_score)
