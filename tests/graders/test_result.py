"""Results: what may be in one, and that a journal gives it back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from rm_gallery.core.graders import (
    GraderError,
    GraderRank,
    GraderScore,
    result_from_json,
    result_to_json,
)

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
metadata = st.dictionaries(texts, json_values, max_size=3)
finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.lists(st.integers(-3, 3), min_size=1, max_size=6)
results = (
    st.builds(GraderScore, texts, finite, texts, metadata)
    | st.builds(
        lambda n, v, r, m: GraderRank(n, GraderRank.of("", v).rank, r, m), texts, numbers, texts, metadata
    )
    | st.builds(GraderError, texts, texts, metadata)
)


@given(results)
def test_a_journal_gives_back_what_it_was_given(result):
    line = result_to_json(result)
    assert "\n" not in line
    assert result_from_json(line) == result
    assert type(result_from_json(line)) is type(result)


@given(numbers)
def test_ranks_are_those_of_scipy(values):
    assert GraderRank.of("r", values).rank == tuple(rankdata([-v for v in values], method="min"))


@given(st.lists(st.integers(-1, 6), min_size=1, max_size=5))
def test_only_rankings_are_ranks(ranks):
    legal = list(rankdata(ranks, method="min")) == ranks
    if legal:
        assert GraderRank("r", tuple(ranks)).rank == tuple(ranks)
    else:
        with pytest.raises(ValueError, match="no ranking"):
            GraderRank("r", tuple(ranks))


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_score(score):
    with pytest.raises(ValueError, match="r: the score is"):
        GraderScore("r", score)


def test_a_score_is_a_float_and_a_rank_a_tuple():
    assert type(GraderScore("r", 3).score) is float
    assert GraderRank("r", [1, 1, 3]).rank == (1, 1, 3)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{}",
        '{"type": "grade"}',
        '{"type": "score"}',
        '{"type": "score", "name": "a", "score": "b"}',
    ],
)
def test_a_torn_line_is_no_result(line):
    with pytest.raises((ValueError, TypeError, KeyError)):
        result_from_json(line)


def test_metadata_that_is_no_json_is_refused():
    with pytest.raises(TypeError):
        result_to_json(GraderScore("r", 1, metadata={"model": object()}))
