"""Rewards: pure functions of a verdict and its truth, and the configuration that picks one."""

from rm_gallery.core.rewards.config import RewardConfig, RewardFunction, load_object
from rm_gallery.core.rewards.functions import (
    exact_match,
    exp_decay,
    linear_decay,
    preference_match,
)
from rm_gallery.core.rewards.scoring import log_score, rps

__all__ = [
    "RewardConfig",
    "RewardFunction",
    "exact_match",
    "exp_decay",
    "linear_decay",
    "load_object",
    "log_score",
    "preference_match",
    "rps",
]
