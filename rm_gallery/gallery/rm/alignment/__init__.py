"""Reward modules of alignment criteria."""

from rm_gallery.gallery.rm.alignment.base import (
    BaseHelpfulnessPairWiseReward,
    BaseHelpfulnessPointWiseReward,
    BaseListWisePrincipleReward,
)

__all__ = [
    "BaseHelpfulnessPairWiseReward",
    "BaseHelpfulnessPointWiseReward",
    "BaseListWisePrincipleReward",
]
