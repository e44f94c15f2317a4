"""Intervals: the same seed gives the same interval, prompts are the unit, and 95% means 95%."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate import estimates, paired_difference, paired_differences
from rm_gallery.core.evaluate.statistics import resample_sums

from .helpers import preferences, scores


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


def test_the_interval_covers_the_truth_95_times_in_100():
    # 150 prompts of two correlated rows each; the interval is that of `reward`, a mean over rows
    rng = np.random.default_rng(7)
    covered, trials = 0, 600
    for _ in range(trials):
        prompt = rng.normal(size=150)
        both = 2 * prompt + rng.normal(size=(2, 150)).sum(axis=0)
        drawn = resample_sums(both[:, None], 400, int(rng.integers(1 << 30)))[:, 0]
        low, high = np.percentile(drawn, [2.5, 97.5])
        covered += low <= 0 <= high
    assert 0.93 <= covered / trials <= 0.97


def test_a_thousand_rows_take_less_than_two_seconds():
    judged = random_scores(1000)
    start = time.perf_counter()
    estimates(judged)
    assert time.perf_counter() - start < 2
