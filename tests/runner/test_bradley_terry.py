"""Strengths from wins: scipy finds the same, and where there are none we say so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components

from rm_gallery.core.runner.bradley_terry import log_likelihood, strengths, why_none

sizes = st.integers(2, 6)
half_wins = st.integers(0, 12).map(lambda n: n / 4)
tables = sizes.flatmap(lambda k: arrays(np.float64, (k, k), elements=half_wins))
names = [f"p{i}" for i in range(40)]


def strongly_connected(table) -> bool:
    table = table * (1 - np.eye(len(table)))
    return connected_components(table > 0, directed=True, connection="strong")[0] == 1


@given(tables)
def test_there_are_strengths_where_wins_lead_from_everyone_to_everyone(table):
    theta = strengths(table)
    exists = strongly_connected(table)
    assert np.isfinite(theta).all() == exists
    assert np.isnan(theta).all() == (not exists)
    assert (why_none(table, names[: len(table)]) == "") == exists


@settings(max_examples=60)
@given(tables)
def test_scipy_finds_no_more_likely_strengths(table):
    assume(strongly_connected(table))
    off = table * (1 - np.eye(len(table)))
    theta = strengths(table)
    found = minimize(
        lambda t: -log_likelihood(off, t - t.mean()),
        np.zeros(len(table)),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    theirs = found.x - found.x.mean()
    assert theta == pytest.approx(theirs, abs=1e-3)
    assert log_likelihood(off, theta) >= -found.fun - 1e-9


@given(tables)
def test_expected_wins_are_the_wins(table):
    """The likelihood's own equations: what each player is expected to win is what it won."""
    assume(strongly_connected(table))
    off = table * (1 - np.eye(len(table)))
    theta = strengths(table)
    chance = 1 / (1 + np.exp(theta[None] - theta[:, None]))
    assert ((off + off.T) * chance).sum(1) - np.diag((off + off.T) * chance) == pytest.approx(
        off.sum(1), abs=1e-6
    )
    assert theta.sum() == pytest.approx(0, abs=1e-9)


@given(tables, st.randoms(use_true_random=False))
def test_relabelling_relabels(table, shuffle):
    order = list(range(len(table)))
    shuffle.shuffle(order)
    assert strengths(table[np.ix_(order, order)]) == pytest.approx(
        strengths(table)[order], abs=1e-6, nan_ok=True
    )


@given(tables)
def test_losers_and_winners_exchanged_change_the_sign(table):
    assert strengths(table.T) == pytest.approx(-strengths(table), abs=1e-6, nan_ok=True)


@given(tables, st.floats(0.01, 100))
def test_only_the_proportions_of_wins_matter(table, factor):
    assert strengths(factor * table) == pytest.approx(strengths(table), abs=1e-6, nan_ok=True)


@given(tables, st.integers(1, 3))
def test_many_tables_at_once_are_each_by_itself(table, more):
    stack = np.stack([table, *[np.roll(table, i + 1, axis=0) for i in range(more)]])
    together = strengths(stack)
    for one, found in zip(stack, together, strict=True):
        assert strengths(one) == pytest.approx(found, abs=1e-8, nan_ok=True)


@pytest.mark.parametrize(("wins", "losses"), [(3, 1), (1, 1), (0.5, 100), (1e6, 1)])
def test_of_two_the_gap_is_the_log_of_their_wins(wins, losses):
    theta = strengths(np.array([[0, wins], [losses, 0]]))
    assert theta[0] - theta[1] == pytest.approx(np.log(wins / losses))


def test_a_long_chain_converges():
    """Each beats the next 99 times of 100: 40 players, strengths 180 apart, no shortcut between them."""
    table = np.zeros((40, 40))
    for i in range(39):
        table[i, i + 1], table[i + 1, i] = 99, 1
    theta = strengths(table)
    assert np.diff(theta) == pytest.approx(-np.log(99))


def test_strengths_that_newtons_own_steps_run_past_are_found():
    """Without halved steps the method diverges on this table."""
    table = np.zeros((5, 5))
    table[0, 4], table[1, 0], table[1, 4], table[2, 1], table[2, 4] = 69, 108771, 2, 2, 3387
    table[3, 0], table[3, 2], table[4, 0], table[4, 1], table[4, 3] = 15625, 11, 347, 1917, 1
    chance = 1 / (1 + np.exp(strengths(table)[None] - strengths(table)[:, None]))
    assert ((table + table.T) * chance).sum(1) == pytest.approx(table.sum(1), rel=1e-6)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], "those who never met, a and b | c and d"),
        ([[0, 0], [0, 0]], "never met, a | b"),
        ([[0, 2, 2], [0, 0, 1], [0, 1, 0]], "a lost and tied no comparison with b and c"),
        ([[0, 1, 0], [1, 0, 0], [1, 0, 0]], "c lost and tied no comparison with a and b"),
        ([[0, 1, 1], [1, 0, 1], [0, 0, 0]], "a and b lost and tied no comparison with c"),
        ([[0]], "nobody to compare with"),
    ],
)
def test_where_there_are_no_strengths_a_sentence_says_why(table, said):
    table = np.array(table, dtype=float)
    assert said in why_none(table, list("abcd")[: len(table)])
    assert np.isnan(strengths(table)).all() or len(table) == 1


def test_a_long_list_of_players_is_cut():
    table = np.ones((9, 9))
    table[0, 1:], table[1:, 0] = 5, 0
    assert "and 3 more" in why_none(table, names[:9])
