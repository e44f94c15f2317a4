"""Figures of distributions: agreement with scikit-learn, and what each of them punishes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from rm_gallery.core.evaluate import compute_baselines, compute_metrics, estimates, score_outputs
from rm_gallery.core.evaluate.calibration import reliability
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask

from .helpers import distributions, expected, pair_row, sample_row, scores

# tenths put many top labels on an edge between two bins
tenths = st.lists(st.integers(0, 10), min_size=5, max_size=5).filter(any)
counts = st.lists(st.integers(0, 1000), min_size=5, max_size=5).filter(any)
judged = st.lists(st.tuples(st.integers(0, 4), tenths | counts), min_size=1, max_size=40)


def normalised(rows):
    return [np.array(weights) / sum(weights) for _, weights in rows]


@settings(max_examples=150)
@given(judged)
def test_they_agree_with_scikit_learn(rows):
    truth, p = np.array([label for label, _ in rows]), np.array(normalised(rows))
    predictions = distributions(truth, p)
    found = compute_metrics(predictions)
    brier = brier_score_loss(truth, p, labels=range(5), scale_by_half=False)
    assert found["brier"] == pytest.approx(brier, abs=1e-12)
    # the ranked probability score is the mean Brier score of "more than k"
    above = [np.clip(p[:, k + 1 :].sum(axis=1), 0, 1) for k in range(4)]
    rps = [np.mean((above[k] - (truth > k)) ** 2) for k in range(4)]
    assert found["rps"] == pytest.approx(np.mean(rps), abs=1e-12)

    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    if right.any() and not right.all():  # scikit-learn refuses one class
        accuracy, mean = calibration_curve(right, confidence, n_bins=10, strategy="uniform")
        bins = reliability(predictions)
        assert [b.accuracy for b in bins] == pytest.approx(accuracy.tolist(), abs=1e-12)
        assert [b.confidence for b in bins] == pytest.approx(mean.tolist(), abs=1e-12)
        n = np.array([b.n for b in bins])
        assert n.sum() == len(rows)
        assert found["ece"] == pytest.approx((n * np.abs(accuracy - mean)).sum() / len(rows), abs=1e-12)
        for found_bin, c in zip(
            bins, mean, strict=True
        ):  # a mean of labels on an edge may be rounded over it
            assert found_bin.low - 1e-12 <= c <= found_bin.high + 1e-12


@settings(max_examples=50)
@given(judged, st.randoms(use_true_random=False))
def test_rows_without_a_distribution_change_nothing(rows, random):
    truth, p = [label for label, _ in rows], normalised(rows)
    before = compute_metrics(distributions(truth, p))
    mixed = [*zip(truth, p, strict=True), (0, None), (4, None)]
    random.shuffle(mixed)
    after = compute_metrics(distributions(*zip(*mixed, strict=True)))
    for name in ("brier", "rps", "ece", "mass"):
        assert after[name] == pytest.approx(before[name], abs=1e-12)
    assert after["invalid"] == 2


def test_a_judge_that_is_sure_and_right_has_no_error_and_one_sure_and_wrong_the_largest():
    sure = np.eye(5)
    right = compute_metrics(distributions(range(5), sure))
    assert (right["brier"], right["rps"], right["ece"]) == (0, 0, 0)
    wrong = compute_metrics(distributions([0, 4], [sure[4], sure[0]]))
    assert (wrong["brier"], wrong["rps"], wrong["ece"]) == (2, 1, 1)


def test_only_the_ranked_score_knows_how_far_off_a_verdict_is():
    near, far = (compute_metrics(distributions([0], [np.eye(5)[k]])) for k in (1, 4))
    assert near["brier"] == far["brier"]
    assert near["rps"] == 0.25 < far["rps"]


def test_a_tie_lies_between_the_preferences():
    def rps(truth, sure):
        p = [float(label == sure) for label in PairwiseTask().verdicts()]
        rows = [pair_row(0, truth)]
        return compute_metrics(score_outputs(PairwiseTask(), rows, [expected(PairwiseTask(), p)]))["rps"]

    assert rps("A", "B") == rps("B", "A") == 1
    assert rps("A", "tie") == rps("B", "tie") == rps("tie", "A") == 0.5


def test_the_shares_of_the_labels_are_calibrated_and_a_constant_has_no_distribution():
    rows = [sample_row(i, label) for i, label in enumerate([4, 4, 4, 3, 1])]
    found = {b.name: b.predictions for b in compute_baselines(PointwiseTask(), rows)}
    assert compute_metrics(found["prior"])["ece"] == pytest.approx(0, abs=1e-12)
    assert found["prior"].predicted == found["majority"].predicted
    assert "ece" not in compute_metrics(found["majority"])


def test_a_vote_without_a_legal_sample_counts_in_the_mass_only():
    answers = [Answer(3, probabilities=(0, 0, 0, 1, 0), mass=0.75), Answer(problem="unparsable", mass=0.0)]
    found = estimates(score_outputs(PointwiseTask(), [sample_row(i, 3) for i in range(2)], answers))
    assert (found["mass"].value, found["mass"].n) == (0.375, 2)
    assert (found["brier"].value, found["brier"].n) == (0, 1)


def test_without_any_distribution_the_figures_are_nan_with_a_reason():
    found = estimates(_only_mass())
    for name in ("brier", "rps", "ece"):
        assert math.isnan(found[name].value)
        assert found[name].reason == "no row has a distribution"


def _only_mass():
    answers = [Answer(problem="unparsable", mass=0.0)] * 2
    return score_outputs(PointwiseTask(), [sample_row(i, 3) for i in range(2)], answers)


def test_ece_has_no_interval_and_says_why():
    found = estimates(distributions([1, 2, 3], [[0.1, 0.2, 0.3, 0.4, 0.0]] * 3))["ece"]
    assert not math.isnan(found.value)
    assert math.isnan(found.low)
    assert "no interval" in found.reason


def test_a_reliability_curve_of_written_verdicts_is_empty():
    assert reliability(scores([1, 2], [1, 2])) == []
