"""A reward of one's own: large errors cost more than small ones, and recent labels count more than old ones.

reward: {name: "examples/reward/time_weighted.py:compute_custom_reward"}
loss: {advantage: group_mean}

or, where PYTHONPATH holds the repository's root, `examples.reward.time_weighted:compute_custom_reward`. The data source of a row is the name of its
dataset in the data YAML; here it ends in the year of its labels, as `support_2024`.

GRPO compares the answers to one question, which share its weight. `group_std` divides by their spread, and the weight
with it, so a weight by row acts with `group_mean` only.
"""

from __future__ import annotations

import re

NEWEST = 2025
HALF_LIFE = 2.0
"""Years in which a label loses half of its weight."""
SCALE = 4
"""The largest error."""


def get_time_weight(data_source: str) -> float:
    """1 for the newest labels, a half for those `HALF_LIFE` years older; of a source without a year 1.

    >>> get_time_weight("support_2025"), get_time_weight("support_2023"), get_time_weight("ours")
    (1.0, 0.5, 1.0)
    """
    year = re.search(r"(\d{4})$", data_source)
    return 0.5 ** (max(0, NEWEST - int(year[1])) / HALF_LIFE) if year else 1.0


def compute_custom_reward(predicted: int, true: int, data_source: str) -> float:
    """(1 - error² / 16) x the weight of the labels' time.

    >>> compute_custom_reward(3, 4, "support_2025"), compute_custom_reward(0, 4, "support_2025")
    (0.9375, 0.0)
    """
    penalty = (predicted - true) ** 2 / SCALE**2
    return (1.0 - penalty) * get_time_weight(data_source)
