"""The reward that verl loads by path: `reward.custom_reward_function.path=reward_fn.py`."""

from rm_gallery.gallery.helpsteer2 import POINTWISE, pointwise_reward

calculate_helpfulness_reward = pointwise_reward
compute_score = POINTWISE.compute_score

__all__ = ["calculate_helpfulness_reward", "compute_score", "pointwise_reward"]
