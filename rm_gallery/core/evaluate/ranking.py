"""Which of two responses to one prompt does a judge that scores them one by one put first?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.evaluate.agreement import Array, ratio
from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.judge.answer import DIGITS

RANKING_WIDTH = 3
"""Columns of `ranking_sums`: pairs with different labels, those ranked rightly, those with tied scores."""


def ranking_scores(predictions: Predictions) -> Array:
    """Each row's number to rank by: the mean of its distribution, else its verdict, NaN where there is none."""
    scale = np.asarray(predictions.labels, dtype=np.float64)
    columns = zip(predictions.predicted, predictions.probabilities, strict=True)
    found = np.array(
        [
            np.nan if verdict is None else float(np.dot(p, scale)) if p is not None else float(verdict)
            for verdict, p in columns
        ],
        dtype=np.float64,
    )
    return found.round(DIGITS)


def weighted_scores(predictions: Predictions) -> tuple[Array, Array]:
    """(label, score) of each row of several dimensions: the weighted means, NaN where there is no verdict."""
    truth, scores = np.zeros(len(predictions)), np.zeros(len(predictions))
    for part in predictions.parts:
        truth += part.weight * np.asarray(part.predictions.truth, dtype=np.float64)
        scores += part.weight * ranking_scores(part.predictions)
    return truth.round(DIGITS), scores.round(DIGITS)


def ranking_sums(truth: Array, scores: Array, cluster: NDArray[np.intp], clusters: int) -> Array:
    """Per-prompt sums, shape (prompts, 3), over the pairs of rows that share a prompt.

    Args:
        truth, scores: (N,) of each row; a score is NaN where there is none.
        cluster: (N,) the number of its prompt.
    """
    sums = np.zeros((clusters, RANKING_WIDTH))
    order = np.argsort(cluster, kind="stable")
    prompt = cluster[order]
    truth, scores = truth[order], scores[order]
    # the k-th neighbour in the sorted order is of the same prompt for all pairs that are k apart
    apart = 1
    while apart < len(prompt) and (same := prompt[apart:] == prompt[:-apart]).any():
        better = np.sign(truth[apart:] - truth[:-apart])
        higher = np.sign(
            scores[apart:] - scores[:-apart]
        )  # NaN where one has no score: neither right nor tied
        counted = same & (better != 0)
        for column, wins in enumerate((counted, counted & (higher == better), counted & (higher == 0))):
            np.add.at(sums[:, column], prompt[apart:][wins], 1.0)
        apart += 1
    return sums


def ranking_values(sums: Array) -> dict[str, tuple[Array, Array]]:
    """name → (value, n) of sums (B, 3)."""
    pairs, right, tied = sums.T
    return {
        "pairwise_accuracy": (ratio(right, pairs - tied), pairs - tied),
        "pairwise_accuracy_half": (ratio(right + tied / 2, pairs), pairs),
    }
