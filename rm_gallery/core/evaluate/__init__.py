"""Evaluation: what a judge answered, how good that is, how sure we are, and what would have cost nothing."""

from rm_gallery.core.evaluate.baselines import Baseline, compute_baselines
from rm_gallery.core.evaluate.metrics import PAIRWISE, POINTWISE, compute_metrics, metric_names
from rm_gallery.core.evaluate.predictions import Predictions, score_outputs
from rm_gallery.core.evaluate.statistics import (
    Estimate,
    estimates,
    paired_difference,
    paired_differences,
)

__all__ = [
    "PAIRWISE",
    "POINTWISE",
    "Baseline",
    "Estimate",
    "Predictions",
    "compute_baselines",
    "compute_metrics",
    "estimates",
    "metric_names",
    "paired_difference",
    "paired_differences",
    "score_outputs",
]
