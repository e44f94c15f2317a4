"""Intervals: the same seed gives the same interval, prompts are the unit, and 95% means 95%."""

from __future__ import annotations

import dataclasses
import functools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate import estimates, paired_difference, paired_differences
from rm_gallery.core.evaluate.metrics import cluster_sums, metric_names, metric_values
from rm_gallery.core.evaluate.statistics import McNemar, mcnemar, paired_mcnemar, resample_sums

from .helpers import distributions, preferences, scores

MIRROR = {"A": "B", "B": "A", "tie": "tie"}


def random_scores(n: int, seed: int = 0, per_prompt: int = 2):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, n)
    predicted = np.clip(truth + rng.integers(-2, 3, n), -1, 4)
    return scores(truth, predicted, np.arange(n) // per_prompt)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    judged = random_scores(60)
    assert estimates(judged) == estimates(judged)
    assert estimates(judged)["reward"].low != estimates(judged, seed=1)["reward"].low


def test_the_order_of_the_rows_does_not_change_the_interval():
    judged = random_scores(60)
    shuffled = judged.take(np.random.default_rng(0).permutation(60).tolist())
    for name, estimate in estimates(judged).items():
        assert estimates(shuffled)[name].low == pytest.approx(estimate.low, abs=1e-12)


def test_every_interval_holds_its_value():
    for judged in (
        random_scores(80),
        preferences(["A", "B", "tie", "tie"] * 10, ["A", None, "B", "tie", "B"] * 8),
    ):
        for name, found in estimates(judged).items():
            assert found.low <= found.value <= found.high, name


def test_doubling_the_rows_of_each_prompt_buys_no_certainty():
    judged = random_scores(80, per_prompt=1)
    doubled = judged.take([*range(80), *range(80)])
    one, two = estimates(judged)["accuracy"], estimates(doubled)["accuracy"]
    assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=1e-12)


def test_one_prompt_has_no_interval():
    found = estimates(scores([1, 2, 3], [1, 1, 1], [0, 0, 0]))["reward"]
    assert math.isnan(found.low)
    assert "one prompt" in (found.reason or "")


def test_an_undefined_figure_carries_its_reason():
    found = estimates(scores([1, 2], [-1, -1]))["kappa"]
    assert math.isnan(found.value)
    assert found.to_dict() == {"value": None, "low": None, "high": None, "n": 0, "reason": found.reason}


def test_the_difference_of_a_judge_to_itself_is_exactly_zero():
    judged = random_scores(60)
    for found in paired_differences(judged, judged).values():
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_difference_changes_sign_with_its_sides_and_matches_rows_by_id():
    a, b = random_scores(60), scores(random_scores(60).truth, [3] * 60, np.arange(60) // 2)
    forward, back = paired_difference(a, b, "mae"), paired_difference(b, a, "mae")
    assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    shuffled = b.take(list(reversed(range(60))))
    assert paired_difference(a, shuffled, "mae").value == pytest.approx(forward.value, abs=1e-12)


def test_a_difference_between_other_rows_is_refused():
    with pytest.raises(DataError, match="different rows"):
        paired_difference(random_scores(10), random_scores(12), "reward")
    with pytest.raises(DataError, match="other labels"):
        paired_difference(scores([1, 2], [1, 2]), scores([1, 3], [1, 2]), "reward")


@functools.cache
def population(kind: str, prompts: int = 2000):
    """A population of prompts, two or three rows each, that are hard or easy for the judge together."""
    rng = np.random.default_rng(11)
    prompt = np.repeat(np.arange(prompts), 2 if kind == "pairs" else rng.integers(2, 4, prompts))
    size, hard = len(prompt), rng.random(prompts)[prompt]
    if kind == "pairs":
        labels = rng.choice(["A", "B", "tie"], prompts, p=[0.45, 0.45, 0.1])[prompt]
        truth = [MIRROR[label] if i % 2 else label for i, label in enumerate(labels)]
        guess = rng.choice(["A", "A", "B", "tie", None], size)
        return preferences(truth, np.where(rng.random(size) < hard, guess, truth).tolist())
    truth = rng.integers(0, 5, prompts)[prompt] // 2 + rng.integers(0, 3, size)
    centre = np.clip(truth + rng.integers(-2, 3, size) * (rng.random(size) < hard), 0, 4)
    sharpness = rng.uniform(0.3, 2, (prompts, 1))[prompt]
    weights = np.exp(-np.abs(np.arange(5) - centre[:, None]) * sharpness)
    p = [None if x < 0.05 else w / w.sum() for x, w in zip(rng.random(size), weights, strict=True)]
    return distributions(truth, p, prompt, mass=1 - hard / 3)


def coverage(judged, sums, samples, seed=7):
    """metric → how often its interval of 500 resamples holds its value in the whole population."""
    true = {name: v[0] for name, (v, _) in metric_values(judged, sums.sum(axis=0)[None]).items()}
    rng, covered = np.random.default_rng(seed), np.zeros(len(true))
    for sample in samples:
        drawn = metric_values(judged, resample_sums(sums[sample], 500, int(rng.integers(1 << 30))))
        low, high = np.percentile([values for values, _ in drawn.values()], [2.5, 97.5], axis=1)
        covered += (low <= [*true.values()]) & ([*true.values()] <= high)
    return dict(zip(true, (covered / len(samples)).tolist(), strict=True))


@pytest.mark.parametrize("kind", ["scores", "pairs"])
def test_the_intervals_cover_the_truth_95_times_in_100(kind):
    judged = population(kind)
    sums = cluster_sums(judged)
    found = coverage(judged, sums, np.random.default_rng(5).integers(0, len(sums), (1200, 300)))
    assert found.keys() == set(metric_names(judged))
    shares = {name: share for name, share in found.items() if name not in ("invalid", "ece")}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


def test_intervals_of_rows_drawn_one_by_one_cover_too_seldom():
    judged = population("scores")
    apart = dataclasses.replace(judged, cluster=tuple(f"{i:05d}" for i in range(len(judged))))
    first = np.unique(np.array(judged.query), return_index=True)[1]  # of the rows of each prompt
    prompts = np.random.default_rng(5).integers(0, len(first), (150, 200))
    rows = np.concatenate([first[prompts], first[prompts] + 1], axis=1)
    assert coverage(apart, cluster_sums(apart), rows)["mass"] < 0.9


def test_resampling_does_not_say_how_sure_the_calibration_error_is():
    """Why it has no interval: of a judge whose probabilities hold, a sample shows an error, a resample a larger one."""
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(5), 4000)
    judged = distributions([rng.choice(5, p=row) for row in p], p)
    sums = cluster_sums(judged)
    samples = rng.integers(0, len(sums), (100, 300))
    assert coverage(judged, sums, samples)["ece"] < 0.5


@settings(max_examples=100)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_the_binomial_test(one, two):
    first, second = [1] * one + [0] * two + [1, 0, 1], [0] * one + [1] * two + [1, 0, math.nan]
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (one, two)
    reference = binomtest(one, one + two, 0.5).pvalue if one + two else 1.0  # nothing speaks against either
    assert found.p == pytest.approx(reference, abs=1e-12)
    assert found.p == mcnemar(second, first).p


def test_mcnemar_holds_where_floating_point_would_not():
    many = mcnemar([1] * 9000 + [0] * 11000, [0] * 9000 + [1] * 11000)
    assert many.p == pytest.approx(binomtest(9000, 20000, 0.5).pvalue, rel=1e-9)
    assert mcnemar([1] * 3000, [0] * 3000).p == pytest.approx(2.0**-2999, abs=0)


def test_mcnemar_of_two_judges_counts_exact_matches_of_the_same_rows():
    one, two = scores([1, 2, 3, 4], [1, 2, -1, 4]), scores([1, 2, 3, 4], [0, 2, -1, 3]).take([3, 2, 1, 0])
    assert paired_mcnemar(one, two) == McNemar(only_first=2, only_second=0, p=0.5)
    with pytest.raises(DataError, match="different rows"):
        paired_mcnemar(one, two.take([0, 1]))
    with pytest.raises(DataError, match="right or wrong"):
        mcnemar([0.5], [1])
    with pytest.raises(DataError, match="2 and 1"):
        mcnemar([0, 1], [1])


def test_a_judge_with_a_distribution_is_compared_with_one_without_on_what_both_have():
    with_one, without = distributions([1, 2], [[0.2] * 5] * 2), scores([1, 2], [1, 2])
    found = paired_differences(with_one, without)
    assert set(found) == set(paired_differences(without, with_one)) == set(metric_names(without))


def test_a_thousand_rows_take_less_than_two_seconds():
    judged = random_scores(1000)
    start = time.process_time()
    estimates(judged)
    assert time.process_time() - start < 2
