"""Agreement of labels and verdicts as formulas on their table of counts, for B tables at once.

A table is (B, L, L): labels by verdicts, both in the order of the scale. What is undefined is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, NaN where the denominator is 0."""
    result = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def quadratic_kappa(counts: Array) -> Array:
    """Cohen's kappa with quadratic weights of tables (B, L, L): `1 - Σ w·observed / Σ w·expected`.

    NaN where nothing is expected to disagree: no rows, or both raters constant at the same label.
    """
    position = np.arange(counts.shape[1], dtype=np.float64)
    weight = (position[:, None] - position[None, :]) ** 2
    # Σ w·(row ⊗ column)/n, written by marginals
    expected = np.einsum("bi,ij,bj->b", counts.sum(axis=2), weight, counts.sum(axis=1))
    observed = (counts * weight).sum(axis=(1, 2)) * counts.sum(axis=(1, 2))
    return 1.0 - ratio(observed, expected)


def spearman(counts: Array) -> Array:
    """Spearman's rank correlation of tables (B, L, L): Pearson's on mid-ranks. NaN where a side is constant."""
    rows, columns = counts.sum(axis=2), counts.sum(axis=1)
    total = counts.sum(axis=(1, 2))[:, None]
    x = _midranks(rows) - (total + 1) / 2
    y = _midranks(columns) - (total + 1) / 2
    product = np.einsum("bi,bij,bj->b", x, counts, y)
    spread = np.sqrt((rows * x**2).sum(axis=1)) * np.sqrt((columns * y**2).sum(axis=1))
    constant = ((rows > 0).sum(axis=1) < 2) | ((columns > 0).sum(axis=1) < 2)
    return ratio(product, np.where(constant, 0.0, spread))


def kendall(counts: Array) -> Array:
    """Kendall's tau-b of tables (B, L, L) (Kendall 1945). NaN where a side is constant.

    `(concordant - discordant) / √(pairs untied on one side · pairs untied on the other)`, over pairs of rows.
    """
    size = counts.shape[1]
    above = np.triu(np.ones((size, size)), k=1)  # [i, k]: k is higher on the scale than i
    # for each cell, the rows with a higher label: those with a higher verdict less those with a lower one
    balance = above @ counts @ (above.T - above)
    difference = (counts * balance).sum(axis=(1, 2))
    squares = counts.sum(axis=(1, 2)) ** 2
    rows, columns = ((squares - (counts.sum(axis=side) ** 2).sum(axis=1)) / 2 for side in (2, 1))
    return ratio(difference, np.sqrt(rows) * np.sqrt(columns))


def macro_f1(table: Array) -> Array:
    """Mean F1 over the verdicts that occur as label or verdict, of tables (B, L, L + 1).

    The last column holds the invalid outputs, each a miss of its label's class. NaN where there are no rows.
    """
    right = np.diagonal(table[:, :, :-1], axis1=1, axis2=2)
    # 2·tp / (2·tp + fp + fn), whose denominator is (labelled + predicted)
    occurs = table.sum(axis=2) + table[:, :, :-1].sum(axis=1)
    f1 = np.where(occurs > 0, ratio(2 * right, occurs), 0.0)
    return ratio(f1.sum(axis=1), (occurs > 0).sum(axis=1).astype(np.float64))


def _midranks(counts: Array) -> Array:
    """The mean rank of the tied values at each level, from counts (B, L)."""
    return np.cumsum(counts, axis=1) - counts + (counts + 1) / 2
