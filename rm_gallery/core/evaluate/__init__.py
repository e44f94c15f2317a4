"""Evaluation: what a judge answered, how good that is, how sure we are, and what would have cost nothing."""

from rm_gallery.core.evaluate.baselines import Baseline, compute_baselines
from rm_gallery.core.evaluate.calibration import ReliabilityBin, reliability
from rm_gallery.core.evaluate.metrics import PAIRWISE, POINTWISE, compute_metrics, metric_names
from rm_gallery.core.evaluate.predictions import Predictions, score_outputs
from rm_gallery.core.evaluate.shares import (
    read_shares,
    share_differences,
    share_estimates,
    share_mcnemar,
    write_shares,
)
from rm_gallery.core.evaluate.statistics import (
    Estimate,
    McNemar,
    estimates,
    mcnemar,
    paired_difference,
    paired_differences,
    paired_mcnemar,
)

__all__ = [
    "PAIRWISE",
    "POINTWISE",
    "Baseline",
    "Estimate",
    "McNemar",
    "Predictions",
    "ReliabilityBin",
    "compute_baselines",
    "compute_metrics",
    "estimates",
    "mcnemar",
    "metric_names",
    "paired_difference",
    "paired_differences",
    "paired_mcnemar",
    "read_shares",
    "reliability",
    "score_outputs",
    "share_differences",
    "share_estimates",
    "share_mcnemar",
    "write_shares",
]
