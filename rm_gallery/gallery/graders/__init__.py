"""Graders of published recipes."""

from rm_gallery.gallery.graders.helpsteer2 import HelpSteer2PairwiseGrader, HelpSteer2PointwiseGrader

__all__ = ["HelpSteer2PairwiseGrader", "HelpSteer2PointwiseGrader"]
