"""The reward that verl loads by path: `reward.custom_reward_function.path=reward_fn.py`.

run_pointwise.sh hands this file to verl: what it says wins over `reward:` in train.yaml. `rmg train` without
that script follows train.yaml.
"""

from rm_gallery.gallery.helpsteer2 import POINTWISE, pointwise_reward

calculate_helpfulness_reward = pointwise_reward
compute_score = POINTWISE.compute_score

__all__ = ["calculate_helpfulness_reward", "compute_score", "pointwise_reward"]
