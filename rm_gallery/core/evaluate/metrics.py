"""The figures of an evaluation, each a function of sums over rows.

Every metric here, also kappa, rank correlation and F1, depends on the rows only through a few sums: the
rewards, the table of truth × verdict (with a column for "invalid"), counts of pairs of rows, and the errors of the
distributions. So a bootstrap replicate is a weighted sum of per-prompt sums, and the same formulas give the estimate
and its 2,000 replicates in one matrix product.

"Invalid" is a column of the table, never a number: no -1 enters a mean. What is undefined is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.evaluate.agreement import Array, kendall, macro_f1, quadratic_kappa, ratio, spearman
from rm_gallery.core.evaluate.calibration import (
    CALIBRATION,
    CALIBRATION_WIDTH,
    calibration_sums,
    calibration_values,
    has_distribution,
)
from rm_gallery.core.evaluate.predictions import Part, Predictions, Verdict
from rm_gallery.core.evaluate.ranking import (
    RANKING_WIDTH,
    ranking_scores,
    ranking_sums,
    ranking_values,
    weighted_scores,
)

Values = dict[str, tuple[Array, Array]]
"""name → (value, n): both of shape (B,), n the number of rows or pairs that the value is over."""

POINTWISE = (
    "reward",
    "accuracy",
    "within_1",
    "mae",
    "mae_parsed",
    "kappa",
    "spearman",
    "kendall",
    "macro_f1",
    "pairwise_accuracy",
    "pairwise_accuracy_half",
    *CALIBRATION,
    "parse_rate",
    "invalid",
)
PAIRWISE = (
    "reward",
    "accuracy",
    "accuracy_untied",
    "two_order_accuracy",
    "two_order_agreement",
    "flip_rate",
    "first_position_rate",
    "macro_f1",
    *CALIBRATION,
    "parse_rate",
    "invalid",
)

DIMENSIONS = (
    "reward",
    "accuracy",
    "mae",
    "pairwise_accuracy",
    "pairwise_accuracy_half",
    "mass",
    "parse_rate",
    "invalid",
)
"""Of several dimensions together. Those of one are named `accuracy/helpfulness`."""
_OF_THE_WHOLE = ("mass", "parse_rate", "invalid")  # no dimension has its own

OF_SEVERAL_ROWS = frozenset(
    ("pairwise_accuracy", "pairwise_accuracy_half", "two_order_accuracy", "two_order_agreement", "flip_rate")
)
"""The metrics that compare rows with each other; the rest are of each row by itself."""

METRICS = {"pointwise": POINTWISE, "pairwise": PAIRWISE, "dimensions": DIMENSIONS}
"""Kind of predictions → their figures in the order in which they are shown."""

_CONSTANT = "undefined: nothing parsed, or the labels or the verdicts are constant"
_ONE_ORDER = "no pair was judged in both orders"
_UNDEFINED = {
    "mae_parsed": "no output could be parsed",
    "kappa": "undefined: nothing parsed, or labels and verdicts are all one and the same score",
    "spearman": _CONSTANT,
    "kendall": _CONSTANT,
    "pairwise_accuracy": "no two rows of one prompt have different labels and different scores",
    "pairwise_accuracy_half": "no two rows of one prompt have different labels",
    "accuracy_untied": "every pair is labelled a tie",
    "two_order_accuracy": _ONE_ORDER,
    "two_order_agreement": _ONE_ORDER,
    "flip_rate": "no pair was judged in both orders with both verdicts parsed",
    "first_position_rate": "no verdict prefers one of the responses",
    **dict.fromkeys(("brier", "rps", "ece"), "no row has a distribution"),
    "mass": "no row has a mass",
}

_NO_INTERVAL = {
    # measured: of a calibrated judge's 500 rows the bootstrap's interval never held the true ECE
    "ece": "no interval, because chance gaps within the bins add to it, and more in a resample",
}


def metric_names(predictions: Predictions) -> tuple[str, ...]:
    """The metrics of this evaluation, in the order in which they are shown.

    Those of `METRICS`, of several dimensions followed by those of each; the ones in `CALIBRATION` only where a row has a distribution.
    """
    names = METRICS[predictions.kind]
    shown = has_distribution(predictions)
    whole = [name for name in names if shown or name not in CALIBRATION]
    return (*whole, *(name for part in predictions.parts for name in _names_of(part)))


def base_metric(metric: str) -> str:
    """What `accuracy/helpfulness` is the figure of."""
    return metric.partition("/")[0]


def _names_of(part: Part) -> list[str]:
    return [f"{name}/{part.name}" for name in metric_names(part.predictions) if name not in _OF_THE_WHOLE]


def no_interval(metric: str) -> str | None:
    """Why a metric has no bootstrap interval, None where it has one."""
    return _NO_INTERVAL.get(base_metric(metric))


def undefined_reason(metric: str) -> str:
    """Why a metric can come out as NaN."""
    return _UNDEFINED.get(base_metric(metric), "there are no rows")


def compute_metrics(predictions: Predictions) -> dict[str, float]:
    """Every metric of these predictions as a plain number, NaN where it is undefined.

    Pointwise (labels 0..4):
        reward: mean over all rows. accuracy: share of exact matches over all rows. within_1: share with an
        error of at most 1, over all rows. mae: mean absolute error over all rows, an invalid output counting
        the width of the scale (4). mae_parsed: over the parsed rows. kappa: Cohen's kappa with quadratic
        weights (Cohen 1968) over the parsed rows. spearman, kendall: rank correlation with ties (tau-b) over the
        parsed rows. macro_f1: as below. pairwise_accuracy: of two rows of one prompt with different labels and
        different scores, the share ranked rightly, an invalid output wrong. pairwise_accuracy_half: the same with
        tied scores, which count one half. parse_rate: share of outputs with a legal verdict. invalid: their
        complement, a count.

    Pairwise:
        reward, accuracy (three-way), parse_rate, invalid: as above. accuracy_untied: over the rows whose label
        is not a tie; a tie or an invalid output is wrong there. Of the pairs judged in both orders,
        two_order_accuracy: the share right in both; two_order_agreement: the share whose verdicts are legal and
        mirror images; flip_rate: of those with both verdicts parsed, the share whose verdicts are not mirror
        images. first_position_rate: share of A among the verdicts A and B. macro_f1: mean F1 over the verdicts
        that occur as label or verdict; an invalid output is a miss of its label's class.

    Several dimensions: those of scores for each, as `mae/helpfulness`, and of the whole reward: the weighted mean
        of the rewards. accuracy: share of rows with every score right. mae: the weighted mean of the dimensions'.
        pairwise_accuracy, pairwise_accuracy_half: as above, of the weighted mean of the scores. parse_rate, invalid.

    Where there is a distribution, over the rows that have one:
        brier: mean of `Σ (p - 1[label])²` over the verdicts (0 to 2). rps: ranked probability score, divided by the
        number of verdicts less one (0 to 1). ece: expected calibration error of the top label in ten bins of equal
        width. mass: mean probability of all legal verdicts together.
    """
    totals = cluster_sums(predictions).sum(axis=0, keepdims=True)
    return {name: float(value[0]) for name, (value, _) in metric_values(predictions, totals).items()}


def cluster_sums(predictions: Predictions) -> Array:
    """Per-prompt sums, shape (prompts, K), in the order of the sorted prompt ids.

    Columns (of several dimensions those of the whole, then of each): the sum of rewards; the table truth × (verdicts, invalid), flattened; the counts of pairs of rows;
    where there are distributions, `calibration_sums`.
    """
    names, cluster = np.unique(np.asarray(predictions.cluster, dtype=np.str_), return_inverse=True)
    if predictions.parts:
        whole = _whole_sums(predictions, cluster, len(names))
        return np.concatenate(
            [whole, *(cluster_sums(part.predictions) for part in predictions.parts)], axis=1
        )
    size, count = len(predictions.labels), len(names)
    index = {label: i for i, label in enumerate(predictions.labels)}
    truth = np.array([index[value] for value in predictions.truth], dtype=np.intp)
    predicted = np.array(
        [size if value is None else index[value] for value in predictions.predicted], dtype=np.intp
    )
    rewards, table = np.zeros((count, 1)), np.zeros((count, size * (size + 1)))
    np.add.at(rewards[:, 0], cluster, np.asarray(predictions.reward, dtype=np.float64))
    np.add.at(table, (cluster, truth * (size + 1) + predicted), 1.0)
    if predictions.kind == "pointwise":
        labels = np.asarray(predictions.truth, dtype=np.float64)
        of_pairs = ranking_sums(labels, ranking_scores(predictions), cluster, count)
    else:
        of_pairs = _order_sums(predictions, cluster, count)
    parts = [rewards, table, of_pairs]
    if has_distribution(predictions):
        parts.append(calibration_sums(predictions, cluster, count))
    return np.concatenate(parts, axis=1)


def metric_values(predictions: Predictions, sums: Array) -> Values:
    """The metrics of B weighted resamples from their sums of shape (B, K), columns as in `cluster_sums`."""
    if predictions.parts:
        return _dimension_values(predictions, sums)
    size = len(predictions.labels)
    pointwise = predictions.kind == "pointwise"
    widths = (1, size * (size + 1), RANKING_WIDTH if pointwise else _ORDER_WIDTH)
    rewards, flat, pairs, rest = np.split(sums, np.cumsum(widths), axis=1)
    table = flat.reshape(-1, size, size + 1)
    values = _common(rewards[:, 0], table)
    if pointwise:
        values |= _pointwise(np.asarray(predictions.labels, dtype=np.float64), table)
        values |= ranking_values(pairs)
    else:
        values |= _pairwise(predictions.labels, table) | _order_values(pairs)
    if rest.shape[1]:
        values |= calibration_values(rest)
    return {name: values[name] for name in metric_names(predictions)}


def _common(rewards: Array, table: Array) -> Values:
    rows = table.sum(axis=(1, 2))
    invalid = table[:, :, -1].sum(axis=1)
    right = np.trace(table[:, :, :-1], axis1=1, axis2=2)
    return {
        "reward": (ratio(rewards, rows), rows),
        "accuracy": (ratio(right, rows), rows),
        "macro_f1": (macro_f1(table), rows),
        "parse_rate": (ratio(rows - invalid, rows), rows),
        "invalid": (invalid, rows),
    }


def _pointwise(scale: Array, table: Array) -> Values:
    counts, invalid = table[:, :, :-1], table[:, :, -1].sum(axis=1)
    parsed = counts.sum(axis=(1, 2))
    rows = parsed + invalid
    error = np.abs(scale[:, None] - scale[None, :])
    total_error = (counts * error).sum(axis=(1, 2))
    return {
        "within_1": (ratio((counts * (error <= 1)).sum(axis=(1, 2)), rows), rows),
        "mae": (ratio(total_error + (scale[-1] - scale[0]) * invalid, rows), rows),
        "mae_parsed": (ratio(total_error, parsed), parsed),
        "kappa": (quadratic_kappa(counts), parsed),
        "spearman": (spearman(counts), parsed),
        "kendall": (kendall(counts), parsed),
    }


def _pairwise(labels: tuple[Verdict, ...], table: Array) -> Values:
    a, b, tie = (labels.index(label) for label in ("A", "B", "tie"))
    untied = table.sum(axis=(1, 2)) - table[:, tie].sum(axis=1)
    first, second = table[:, :, a].sum(axis=1), table[:, :, b].sum(axis=1)
    return {
        "accuracy_untied": (ratio(table[:, a, a] + table[:, b, b], untied), untied),
        "first_position_rate": (ratio(first, first + second), first + second),
    }


_WHOLE_WIDTH = 6


def _whole_sums(predictions: Predictions, cluster: NDArray[np.intp], clusters: int) -> Array:
    """Per-prompt sums of several dimensions together: rewards, rows, right in all, invalid, with a mass, mass, ranking."""
    known = [0.0 if mass is None else mass for mass in predictions.mass]
    columns = (
        predictions.reward,
        np.ones(len(predictions)),
        [t == p for t, p in zip(predictions.truth, predictions.predicted, strict=True)],
        [p is None for p in predictions.predicted],
        [mass is not None for mass in predictions.mass],
        known,
    )
    sums = np.zeros((clusters, _WHOLE_WIDTH))
    for i, column in enumerate(columns):
        np.add.at(sums[:, i], cluster, np.asarray(column, dtype=np.float64))
    return np.concatenate([sums, ranking_sums(*weighted_scores(predictions), cluster, clusters)], axis=1)


def _dimension_values(predictions: Predictions, sums: Array) -> Values:
    widths = [_WHOLE_WIDTH, RANKING_WIDTH, *(_width(part.predictions) for part in predictions.parts)]
    whole, pairs, *rest = np.split(sums, np.cumsum(widths)[:-1], axis=1)
    rewards, rows, right, invalid, known, mass = whole.T
    found = [metric_values(part.predictions, own) for part, own in zip(predictions.parts, rest, strict=True)]
    errors = [part.weight * values["mae"][0] for part, values in zip(predictions.parts, found, strict=True)]
    values = {
        "reward": (ratio(rewards, rows), rows),
        "accuracy": (ratio(right, rows), rows),
        "mae": (np.sum(errors, axis=0), rows),
        "mass": (ratio(mass, known), known),
        "parse_rate": (ratio(rows - invalid, rows), rows),
        "invalid": (invalid, rows),
        **ranking_values(pairs),
    }
    for part, of_part in zip(predictions.parts, found, strict=True):
        values |= {f"{name}/{part.name}": value for name, value in of_part.items()}
    return {name: values[name] for name in metric_names(predictions)}


def _width(predictions: Predictions) -> int:
    """The columns of `cluster_sums` of scores."""
    size = len(predictions.labels)
    calibration = CALIBRATION_WIDTH if has_distribution(predictions) else 0
    return 1 + size * (size + 1) + RANKING_WIDTH + calibration


_ORDER_WIDTH = 4
_MIRROR: dict[Verdict | None, str] = {"A": "B", "B": "A", "tie": "tie"}


def _order_sums(predictions: Predictions, cluster: NDArray[np.intp], clusters: int) -> Array:
    """Per-prompt counts of pairs: judged in both orders, both verdicts parsed, not mirror images, both right."""
    sums = np.zeros((clusters, _ORDER_WIDTH))
    forward: dict[str, int] = {}
    swapped: dict[str, int] = {}
    for i, (group, order) in enumerate(zip(predictions.group, predictions.order, strict=True)):
        (forward if order == "forward" else swapped).setdefault(group, i)
    truth, predicted = predictions.truth, predictions.predicted
    for group, i in forward.items():
        if (j := swapped.get(group)) is None:
            continue
        parsed = predicted[i] is not None and predicted[j] is not None
        flips = parsed and predicted[j] != _MIRROR[predicted[i]]
        right = predicted[i] == truth[i] and predicted[j] == truth[j]
        sums[cluster[i]] += (1, parsed, flips, right)
    return sums


def _order_values(sums: Array) -> Values:
    both, parsed, flips, right = sums.T
    return {
        "two_order_accuracy": (ratio(right, both), both),
        "two_order_agreement": (ratio(parsed - flips, both), both),
        "flip_rate": (ratio(flips, parsed), parsed),
    }
