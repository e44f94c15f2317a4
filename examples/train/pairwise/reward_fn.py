"""The reward that verl loads by path: `reward.custom_reward_function.path=reward_fn.py`.

run_pairwise.sh hands this file to verl: what it says wins over `reward:` in train.yaml. `rmg train` without
that script follows train.yaml.
"""

from rm_gallery.core.templates import extract_preference_from_response
from rm_gallery.gallery.helpsteer2 import PAIRWISE

compute_score = PAIRWISE.compute_score

__all__ = ["compute_score", "extract_preference_from_response"]
