"""Sums and means over graders and items: never a silent number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rm_gallery.core.errors import DataError
from rm_gallery.core.graders import GraderError, GraderRank, GraderScore
from rm_gallery.core.runner import Part, scores, summarize, weighted_sum

finite = st.floats(-1e6, 1e6)
score = st.builds(GraderScore, st.just("a"), finite)
error = st.builds(
    GraderError, st.just("a"), st.just("late"), st.sampled_from([{"kind": "timeout"}, {"kind": "server"}, {}])
)
rank = st.just(GraderRank("a", (1, 2)))


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(score | error | rank, finite), max_size=5))
def test_a_weighted_sum_is_the_sum_or_names_what_is_missing(found):
    parts = {name: Part(*part) for name, part in found.items()}
    result = weighted_sum("sum", parts)
    missing = [n for n, p in parts.items() if p.weight and not isinstance(p.result, GraderScore)]
    if missing:
        assert isinstance(result, GraderError)
        assert result.kind == "part"
        assert all(f"{name}: " in result.error for name in missing)
        assert np.isnan(scores([result])).all()
    else:
        total = math.fsum(p.weight * p.result.score for p in parts.values() if p.weight)
        assert result.score == pytest.approx(total, rel=1e-9, abs=1e-3)


def test_a_part_without_weight_may_be_missing():
    parts = {"a": Part(GraderScore("a", 2), 1.5), "b": Part(GraderError("b", "late"), 0)}
    assert weighted_sum("sum", parts).score == 3
    assert weighted_sum("sum", parts).reason == "the sum 1.5 · a"


def test_a_sum_that_overflows_is_an_error():
    parts = {name: Part(GraderScore("a", 1e308), 10) for name in "ab"}
    assert "inf" in weighted_sum("sum", parts).error


@given(st.lists(score | error | rank, max_size=30), st.integers(0, 3))
def test_a_summary_counts_every_result(found, seed):
    summary = summarize({"a": found}, seed=seed, resamples=100)["a"]
    known = [result.score for result in found if isinstance(result, GraderScore)]
    assert (summary.n, summary.scored) == (len(found), len(known))
    assert sum(summary.errors.values()) == sum(isinstance(result, GraderError) for result in found)
    assert math.isnan(summary.mean.value) == (not known)
    if known:
        assert summary.mean.value == pytest.approx(np.mean(known), abs=1e-6)
        assert summary.mean.n == len(known)
    if len(known) > 1:
        assert summary.mean.low <= summary.mean.high
    else:
        assert summary.mean.reason  # no number without its reason
        assert math.isnan(summary.mean.low)


def test_the_interval_is_scipys():
    drawn = np.random.default_rng(0).normal(3, 2, 400)
    found = summarize({"a": [GraderScore("a", value) for value in drawn]}, resamples=20_000)["a"].mean
    theirs = stats.bootstrap(
        (drawn,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(300):
        found = summarize(
            {"a": [GraderScore("a", value) for value in rng.integers(0, 5, 60)]}, resamples=300, seed=seed
        )["a"].mean
        held += found.low <= 2 <= found.high
    assert stats.binomtest(held, 300, 0.94).pvalue > 0.001


def test_responses_to_one_prompt_buy_no_certainty():
    rng = np.random.default_rng(0)
    per_prompt = rng.normal(size=50)
    one = [GraderScore("a", value) for value in per_prompt]
    ten = [result for result in one for _ in range(10)]
    alone = summarize({"a": one})["a"].mean
    together = summarize({"a": ten}, clusters=[i // 10 for i in range(500)])["a"].mean
    assert (alone.low, alone.high) == pytest.approx((together.low, together.high), abs=1e-9)


def test_clusters_are_one_for_each_result():
    with pytest.raises(DataError, match="one for each"):
        summarize({"a": [GraderScore("a", 1)]}, clusters=[1, 2])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "no results"),
        ([GraderRank("a", (1, 2))], "the grader ranks"),
        ([GraderError("a", "e", {"kind": "timeout"})] * 3 + [GraderError("a", "e")], "3 timeout, 1 unknown"),
    ],
)
def test_a_mean_of_nothing_says_why(found, said):
    summary = summarize({"a": found})["a"]
    assert said in summary.mean.reason
    assert summary.to_dict()["mean"]["value"] is None


@settings(max_examples=10)
@given(st.lists(score, min_size=2, max_size=20))
def test_the_same_seed_gives_the_same_interval(found):
    assert summarize({"a": found}, resamples=50, seed=3) == summarize({"a": found}, resamples=50, seed=3)
