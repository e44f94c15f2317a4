"""Do the probabilities mean what they say? Figures of judges that give a distribution over the verdicts.

Like every metric they are functions of per-prompt sums, so that their intervals come with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.evaluate.agreement import Array, ratio
from rm_gallery.core.evaluate.predictions import Predictions, Verdict

CALIBRATION = ("brier", "rps", "ece", "mass")
BINS = 10
CALIBRATION_WIDTH = 5 + BINS
"""Columns of `calibration_sums`: rows, Brier, RPS, rows with a mass, mass, and each bin's gap."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose top label has a probability in (low, high].

    Attributes:
        n: how many there are; at least 1.
        confidence: the mean probability of their top label.
        accuracy: the share of them whose top label is the label.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def has_distribution(predictions: Predictions) -> bool:
    """Whether any row was judged in a mode that gives a distribution."""
    if any(has_distribution(part.predictions) for part in predictions.parts):
        return True
    columns = zip(predictions.probabilities, predictions.mass, strict=True)
    return any(probabilities is not None or mass is not None for probabilities, mass in columns)


def calibration_sums(predictions: Predictions, cluster: NDArray[np.intp], clusters: int) -> Array:
    """Per-prompt sums, shape (prompts, 15), over the rows with a distribution."""
    sums = np.zeros((clusters, CALIBRATION_WIDTH))
    rows, probabilities, truth = _distributions(predictions)
    observed = np.eye(len(predictions.labels))[truth]
    bins, confidence, right = _top(probabilities, truth)
    np.add.at(sums[:, 0], cluster[rows], 1.0)
    np.add.at(sums[:, 1], cluster[rows], ((probabilities - observed) ** 2).sum(axis=1))
    np.add.at(sums[:, 2], cluster[rows], _rps(predictions.labels, probabilities, observed))
    np.add.at(sums, (cluster[rows], 5 + bins), right - confidence)
    known = np.array([i for i, mass in enumerate(predictions.mass) if mass is not None], dtype=np.intp)
    np.add.at(sums[:, 3], cluster[known], 1.0)
    np.add.at(sums[:, 4], cluster[known], [mass for mass in predictions.mass if mass is not None])
    return sums


def calibration_values(sums: Array) -> dict[str, tuple[Array, Array]]:
    """name → (value, n) of sums (B, 15)."""
    rows, known = sums[:, 0], sums[:, 3]
    return {
        "brier": (ratio(sums[:, 1], rows), rows),
        "rps": (ratio(sums[:, 2], rows), rows),
        # Σ over bins of (n_b / n)·|accuracy_b - confidence_b|
        "ece": (ratio(np.abs(sums[:, 5:]).sum(axis=1), rows), rows),
        "mass": (ratio(sums[:, 4], known), known),
    }


def reliability(predictions: Predictions) -> list[ReliabilityBin]:
    """The bins of `ece` that hold rows, for a reliability curve."""
    _, probabilities, truth = _distributions(predictions)
    bins, confidence, right = _top(probabilities, truth)
    return [
        ReliabilityBin(
            low=b / BINS,
            high=(b + 1) / BINS,
            n=int((bins == b).sum()),
            confidence=float(confidence[bins == b].mean()),
            accuracy=float(right[bins == b].mean()),
        )
        for b in np.unique(bins).tolist()
    ]


def _distributions(predictions: Predictions) -> tuple[NDArray[np.intp], Array, NDArray[np.intp]]:
    """The M rows with a distribution: their positions, probabilities (M, L), and labels' positions on the scale."""
    index = {label: i for i, label in enumerate(predictions.labels)}
    found = [(i, p) for i, p in enumerate(predictions.probabilities) if p is not None]
    rows = np.array([i for i, _ in found], dtype=np.intp)
    probabilities = np.array([p for _, p in found], dtype=np.float64).reshape(-1, len(index))
    truth = np.array([index[predictions.truth[i]] for i, _ in found], dtype=np.intp)
    return rows, probabilities, truth


def _top(probabilities: Array, truth: NDArray[np.intp]) -> tuple[NDArray[np.intp], Array, Array]:
    """(bin, confidence, whether it is right) of each row's most probable label, the first where several are."""
    top = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1, initial=0.0)
    # right-closed bins of equal width, as Guo et al. 2017 have them
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    return bins, confidence, (top == truth).astype(np.float64)


def _rps(labels: tuple[Verdict, ...], probabilities: Array, observed: Array) -> Array:
    """Epstein's ranked probability score (1969) of each row, divided by L - 1: from 0 to 1.

    A tie lies between the preferences A and B.
    """
    pairs = set(labels) == {"A", "tie", "B"}
    scale = [labels.index(label) for label in ("A", "tie", "B")] if pairs else list(range(len(labels)))
    gaps = np.cumsum((probabilities - observed)[:, scale], axis=1)[:, :-1]
    result: Array = (gaps**2).sum(axis=1) / max(len(labels) - 1, 1)
    return result
