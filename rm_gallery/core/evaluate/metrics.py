"""The figures of an evaluation, each a function of sums over rows.

Every metric here, also kappa, rank correlation and F1, depends on the rows only through a few sums: the
rewards, the table of truth × verdict (with a column for "invalid"), and for pairs the counts of groups. So a
bootstrap replicate is a weighted sum of per-prompt sums, and the same formulas give the estimate and its
2,000 replicates in one matrix product.

"Invalid" is a column of the table, never a number: no -1 enters a mean. What is undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.evaluate.predictions import Predictions, Verdict

Array = NDArray[np.float64]
Values = dict[str, tuple[Array, Array]]
"""name → (value, n): both of shape (B,), n the number of rows or groups that the value is over."""

POINTWISE = (
    "reward",
    "accuracy",
    "within_1",
    "mae",
    "mae_parsed",
    "kappa",
    "spearman",
    "parse_rate",
    "invalid",
)
PAIRWISE = (
    "reward",
    "accuracy",
    "accuracy_untied",
    "flip_rate",
    "first_position_rate",
    "macro_f1",
    "parse_rate",
    "invalid",
)

_UNDEFINED = {
    "mae_parsed": "no output could be parsed",
    "kappa": "undefined: nothing parsed, or labels and verdicts are all one and the same score",
    "spearman": "undefined: nothing parsed, or the labels or the verdicts are constant",
    "accuracy_untied": "every pair is labelled a tie",
    "flip_rate": "no pair was judged in both orders with both verdicts parsed",
    "first_position_rate": "no verdict prefers one of the responses",
}


def metric_names(predictions: Predictions) -> tuple[str, ...]:
    """The metrics of this kind of evaluation, in the order in which they are shown."""
    return POINTWISE if predictions.kind == "pointwise" else PAIRWISE


def undefined_reason(metric: str) -> str:
    """Why a metric can come out as NaN."""
    return _UNDEFINED.get(metric, "there are no rows")


def compute_metrics(predictions: Predictions) -> dict[str, float]:
    """Every metric of these predictions as a plain number, NaN where it is undefined.

    Pointwise (labels 0..4):
        reward: mean over all rows. accuracy: share of exact matches over all rows. within_1: share with an
        error of at most 1, over all rows. mae: mean absolute error over all rows, an invalid output counting
        the width of the scale (4). mae_parsed: over the parsed rows. kappa: Cohen's kappa with quadratic
        weights (Cohen 1968) over the parsed rows. spearman: rank correlation with ties over the parsed rows.
        parse_rate: share of outputs with a legal verdict. invalid: their complement, a count.

    Pairwise:
        reward, accuracy (three-way), parse_rate, invalid: as above. accuracy_untied: over the rows whose label
        is not a tie; a tie or an invalid output is wrong there. flip_rate: among the pairs judged in both
        orders with both verdicts parsed, the share whose verdicts are not mirror images. first_position_rate:
        share of A among the verdicts A and B. macro_f1: mean F1 over the verdicts that occur as label or
        verdict; an invalid output is a miss of its label's class.
    """
    totals = cluster_sums(predictions).sum(axis=0, keepdims=True)
    return {name: float(value[0]) for name, (value, _) in metric_values(predictions, totals).items()}


def cluster_sums(predictions: Predictions) -> Array:
    """Per-prompt sums, shape (prompts, K), in the order of the sorted prompt ids.

    Columns: the sum of rewards; the table truth × (verdicts, invalid), flattened; for pairs also the number of
    groups with both orders parsed and the number of those that flip.
    """
    names, cluster = np.unique(np.asarray(predictions.cluster, dtype=np.str_), return_inverse=True)
    size = len(predictions.labels)
    table = size * (size + 1)
    sums = np.zeros((len(names), 1 + table + (2 if predictions.kind == "pairwise" else 0)))
    if not len(predictions):
        return sums
    index: dict[Verdict | None, int] = {label: i for i, label in enumerate(predictions.labels)}
    truth = np.array([index[value] for value in predictions.truth])
    predicted = np.array([size if value is None else index[value] for value in predictions.predicted])
    np.add.at(sums[:, 0], cluster, np.asarray(predictions.reward, dtype=np.float64))
    np.add.at(sums, (cluster, 1 + truth * (size + 1) + predicted), 1.0)
    if predictions.kind == "pairwise":
        _add_flips(predictions, cluster, sums)
    return sums


def metric_values(predictions: Predictions, sums: Array) -> Values:
    """The metrics of B weighted resamples from their sums of shape (B, K), columns as in `cluster_sums`."""
    size = len(predictions.labels)
    table = sums[:, 1 : 1 + size * (size + 1)].reshape(-1, size, size + 1)
    formulas: Callable[..., Values] = _pointwise if predictions.kind == "pointwise" else _pairwise
    return formulas(predictions.labels, sums, table)


def _pointwise(labels: tuple[int, ...], sums: Array, table: Array) -> Values:
    values, rows, parsed = _common(sums, table)
    scale = np.asarray(labels, dtype=np.float64)
    counts = table[:, :, :-1]
    error = np.abs(scale[:, None] - scale[None, :])
    total_error = (counts * error).sum(axis=(1, 2))
    width = scale[-1] - scale[0]
    values["within_1"] = _over((counts * (error <= 1)).sum(axis=(1, 2)), rows)
    values["mae"] = _over(total_error + width * table[:, :, -1].sum(axis=1), rows)
    values["mae_parsed"] = _over(total_error, parsed)
    values["kappa"] = quadratic_kappa(counts), parsed
    values["spearman"] = spearman(counts), parsed
    return {name: values[name] for name in POINTWISE}


def _pairwise(labels: tuple[str, ...], sums: Array, table: Array) -> Values:
    values, rows, _ = _common(sums, table)
    a, b, tie = (labels.index(label) for label in ("A", "B", "tie"))
    right = np.diagonal(table[:, :, :-1], axis1=1, axis2=2)
    untied = rows - table[:, tie].sum(axis=1)
    values["accuracy_untied"] = _over(right[:, a] + right[:, b], untied)
    first, second = table[:, :, a].sum(axis=1), table[:, :, b].sum(axis=1)
    values["first_position_rate"] = _over(first, first + second)
    values["flip_rate"] = _over(sums[:, -1], sums[:, -2])
    # 2·tp / (2·tp + fp + fn), whose denominator is (labelled + predicted)
    f1, occurs = _over(2 * right, table.sum(axis=2) + table[:, :, :-1].sum(axis=1))
    values["macro_f1"] = _over(np.where(occurs > 0, f1, 0.0).sum(axis=1), (occurs > 0).sum(axis=1))[0], rows
    return {name: values[name] for name in PAIRWISE}


def _common(sums: Array, table: Array) -> tuple[Values, Array, Array]:
    rows = table.sum(axis=(1, 2))
    invalid = table[:, :, -1].sum(axis=1)
    parsed = rows - invalid
    right = np.trace(table[:, :, :-1], axis1=1, axis2=2)
    values: Values = {
        "reward": _over(sums[:, 0], rows),
        "accuracy": _over(right, rows),
        "parse_rate": _over(parsed, rows),
        "invalid": (invalid, rows),
    }
    return values, rows, parsed


def quadratic_kappa(counts: Array) -> Array:
    """Cohen's kappa with quadratic weights of tables (B, L, L): `1 - Σ w·observed / Σ w·expected`.

    NaN where nothing is expected to disagree: no rows, or both raters constant at the same label.
    """
    position = np.arange(counts.shape[1], dtype=np.float64)
    weight = (position[:, None] - position[None, :]) ** 2
    # Σ w·(row ⊗ column)/n, written by marginals
    expected = np.einsum("bi,ij,bj->b", counts.sum(axis=2), weight, counts.sum(axis=1))
    observed = (counts * weight).sum(axis=(1, 2)) * counts.sum(axis=(1, 2))
    return 1.0 - _over(observed, expected)[0]


def spearman(counts: Array) -> Array:
    """Spearman's rank correlation of tables (B, L, L): Pearson's on mid-ranks. NaN where a side is constant."""
    rows, columns = counts.sum(axis=2), counts.sum(axis=1)
    total = counts.sum(axis=(1, 2))[:, None]
    x = _midranks(rows) - (total + 1) / 2
    y = _midranks(columns) - (total + 1) / 2
    product = np.einsum("bi,bij,bj->b", x, counts, y)
    spread = np.sqrt((rows * x**2).sum(axis=1)) * np.sqrt((columns * y**2).sum(axis=1))
    constant = ((rows > 0).sum(axis=1) < 2) | ((columns > 0).sum(axis=1) < 2)
    return _over(product, np.where(constant, 0.0, spread))[0]


def _midranks(counts: Array) -> Array:
    """The mean rank of the tied values at each level, from counts (B, L)."""
    return np.cumsum(counts, axis=1) - counts + (counts + 1) / 2


def _over(numerator: Array, denominator: Array) -> tuple[Array, Array]:
    """(numerator / denominator with NaN where the denominator is 0, denominator)."""
    result = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result, denominator


def _add_flips(predictions: Predictions, cluster: NDArray[np.intp], sums: Array) -> None:
    mirror: dict[Verdict | None, str] = {"A": "B", "B": "A", "tie": "tie"}
    forward: dict[str, int] = {}
    swapped: dict[str, int] = {}
    for i, (group, order) in enumerate(zip(predictions.group, predictions.order, strict=True)):
        (forward if order == "forward" else swapped).setdefault(group, i)
    for group, i in forward.items():
        j = swapped.get(group)
        if j is None or predictions.predicted[i] is None or predictions.predicted[j] is None:
            continue
        sums[cluster[i], -2] += 1
        sums[cluster[i], -1] += predictions.predicted[j] != mirror[predictions.predicted[i]]
