"""Players against each other: what the order they are shown in, their names and their places cannot change."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders import GraderError, GraderRank
from rm_gallery.core.runner import GraderConfig, GradingRunner, Match, rank_matches, tournament
from rm_gallery.core.runner.bradley_terry import strengths
from rm_gallery.core.runner.tournament import table
from tests.runner.graders import BothOrders, Length, Preferring

FIRST, SECOND, TIE = GraderRank("j", (1, 2)), GraderRank("j", (2, 1)), GraderRank("j", (1, 1))
NONE = GraderError("j", "no legal verdict", {"kind": "unparsable"})


def play(grader, entries, *, schedule=None, seed=0, **options):
    items = [{"query": f"q{i}"} for i in range(len(next(iter(entries.values()))))]
    runner = GradingRunner({"j": grader}, **options)
    return runner.tournament(entries, items, schedule=schedule, seed=seed)["j"]


def same(a, b, **tolerance):
    return (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), nan_ok=True, **tolerance)


entries = st.integers(2, 4).flatmap(
    lambda k: st.integers(1, 5).flatmap(
        lambda n: st.fixed_dictionaries(
            {name: st.lists(st.integers(0, 3).map(str), min_size=n, max_size=n) for name in "abcd"[:k]}
        )
    )
)


@settings(max_examples=40)
@given(entries, st.sampled_from([0.0, 0.5, 5.0]), st.booleans())
def test_other_names_and_another_order_of_the_players_change_nothing(entries, bias, both):
    grader = BothOrders if both else Preferring
    found = play(grader(bias=bias), entries)
    renamed = {name.upper(): entries[name] for name in reversed(list(entries))}
    other = play(grader(bias=bias), renamed)
    for name in entries:
        assert same(other.win_rates[name.upper()], found.win_rates[name], abs=1e-9)
        assert same(other.strengths[name.upper()], found.strengths[name], abs=1e-6)
    assert same(other.flip_rate, found.flip_rate)
    assert same(other.first_position_rate, found.first_position_rate)


@settings(max_examples=40)
@given(entries)
def test_a_judge_that_always_prefers_the_first_finds_all_equal(entries):
    for grader in (Preferring(bias=100), BothOrders(bias=100)):
        found = play(grader, entries)
        assert [rate.value for rate in found.win_rates.values()] == [0.5] * len(entries)
        assert [theta.value for theta in found.strengths.values()] == pytest.approx([0] * len(entries))
        assert (found.flip_rate.value, found.first_position_rate.value) == (1, 1)


@settings(max_examples=40)
@given(entries, st.sampled_from([0.0, 0.5]), st.integers(0, 2))
def test_the_figures_are_those_of_a_plain_count(entries, bias, dropped):
    grader = Preferring(bias=bias, broken=[("0", "1"), ("3", "2")][:dropped])
    found = play(grader, entries)
    won, games, flips, complete = dict.fromkeys(entries, 0.0), dict.fromkeys(entries, 0), 0, 0
    preferred = []
    wins = np.zeros((len(entries), len(entries)))
    names = list(entries)
    for i in range(len(next(iter(entries.values())))):
        for a, b in itertools.combinations(names, 2):
            x, y = float(entries[a][i]), float(entries[b][i])
            for shown, gap in (
                ((entries[a][i], entries[b][i]), x - y),
                ((entries[b][i], entries[a][i]), y - x),
            ):
                if shown not in grader._broken and gap + bias != 0:
                    preferred.append(gap + bias > 0)
            if {(entries[a][i], entries[b][i]), (entries[b][i], entries[a][i])} & grader._broken:
                continue
            forward, swapped = np.sign(x - y + bias), -np.sign(y - x + bias)
            share = (forward + swapped + 2) / 4
            won[a], won[b] = won[a] + share, won[b] + 1 - share
            games[a], games[b] = games[a] + 1, games[b] + 1
            flips, complete = flips + (forward != swapped), complete + 1
            wins[names.index(a), names.index(b)] += share
            wins[names.index(b), names.index(a)] += 1 - share
    assert found.complete == complete
    for i, name in enumerate(names):
        assert found.win_rates[name].n == games[name]
        expected = won[name] / games[name] if games[name] else math.nan
        assert found.win_rates[name].value == pytest.approx(expected, nan_ok=True)
        assert found.strengths[name].value == pytest.approx(strengths(wins)[i], nan_ok=True)
    assert found.flip_rate.value == pytest.approx(flips / complete if complete else math.nan, nan_ok=True)
    first = sum(preferred) / len(preferred) if preferred else math.nan
    assert found.first_position_rate.value == pytest.approx(first, nan_ok=True)
    assert found.first_position_rate.n == len(preferred)
    for estimate in [*found.win_rates.values(), *found.strengths.values(), found.flip_rate]:
        # whatever is no number says why
        assert bool(estimate.reason) == any(map(math.isnan, (estimate.value, estimate.low, estimate.high)))
    asked = 2 * len(found.matches)
    assert len(grader.asked) == asked
    broken = sum(pair in grader._broken for pair in grader.asked)
    assert found.errors == ({"unparsable": broken} if broken else {})


def test_every_pair_is_asked_in_both_orders_and_a_schedule_is_followed():
    entries = {"a": ["0", "3"], "b": ["1", "4"], "c": ["2", "5"]}
    grader = Preferring()
    play(grader, entries)
    per_item = (("0", "1", "2"), ("3", "4", "5"))
    assert sorted(grader.asked) == sorted(p for item in per_item for p in itertools.permutations(item, 2))
    scheduled = Preferring()
    found = play(scheduled, entries, schedule=[(1, "c", "a"), (1, "c", "a")])
    assert scheduled.asked == [("5", "3"), ("3", "5")] * 2
    assert "never met" in found.strengths["a"].reason
    assert "b has no comparison" in found.win_rates["b"].reason


def test_a_judge_that_looks_at_both_orders_itself_is_asked_once():
    entries = {"a": ["0"], "b": ["1"]}
    grader = BothOrders()
    found = play(grader, entries)
    assert grader.asked == [("0", "1"), ("1", "0")]
    assert len(found.matches[0].results) == 1
    assert found.win_rates["b"].value == 1
    assert found.flip_rate.value == 0
    assert found.first_position_rate.value == 0.5


def test_graders_of_both_kinds_play_side_by_side():
    runner = GradingRunner({"one": BothOrders(), "two": Preferring()})
    found = runner.tournament({"a": ["0", "1"], "b": ["1", "0"]}, [{}, {}])
    assert list(found) == ["one", "two"]
    assert [f.win_rates["a"].value for f in found.values()] == [0.5, 0.5]


def test_a_player_without_a_response_takes_no_part():
    grader = Preferring()
    found = play(grader, {"a": ["1", "2"], "b": ["2", None], "c": ["3", "1"]})
    assert len(found.matches) == 4
    assert found.win_rates["b"].n == 2


def test_one_prompt_has_no_interval():
    found = play(Preferring(), {"a": ["1"], "b": ["2"]})
    assert found.win_rates["b"].value == 1
    assert math.isnan(found.win_rates["b"].low)
    assert "one prompt" in found.win_rates["b"].reason


def test_who_lost_nothing_has_no_strength_and_a_sentence():
    found = play(Preferring(), {"good": ["3"] * 5, "bad": ["1"] * 5, "worse": ["0"] * 5})
    assert "good lost and tied no comparison with bad and worse" in found.strengths["bad"].reason
    assert found.to_dict()["strengths"]["good"]["value"] is None
    assert found.win_rates["good"].value == 1


def test_the_intervals_cover_the_truth_as_often_as_they_say():
    """A noisy judge of three players whose strengths are known: responses drawn with a gap, verdicts with noise."""
    truth = np.array([0.6, 0.0, -0.6])
    rng = np.random.default_rng(0)
    held_rate = held_strength = 0
    # what each is expected to win, from many draws
    pairs = [(0, 1), (0, 2), (1, 2)]
    chance = {(i, j): 1 / (1 + np.exp(truth[j] - truth[i])) for i, j in pairs}
    expected_rate = (chance[0, 1] + chance[0, 2]) / 2
    rounds = 120
    for seed in range(rounds):
        matches = []
        for item in range(60):
            for i, j in pairs:
                first, second = (FIRST if rng.random() < chance[i, j] else SECOND for _ in range(2))
                swapped = SECOND if second is FIRST else FIRST
                matches.append(Match(item, str(i), str(j), (first, swapped)))
        found = table(("0", "1", "2"), tuple(matches), resamples=200, seed=seed)
        rate, strength = found.win_rates["0"], found.strengths["0"]
        held_rate += rate.low <= expected_rate <= rate.high
        held_strength += strength.low <= truth[0] <= strength.high
    for held in (held_rate, held_strength):
        assert stats.binomtest(held, rounds, 0.94).pvalue > 0.001


def test_the_bootstrap_of_strengths_agrees_with_their_information():
    """Independent comparisons: the interval's width is that of the inverse Fisher information."""
    rng = np.random.default_rng(1)
    pairs, truth = [(0, 1), (0, 2), (1, 2)], np.array([0.5, 0.0, -0.5])
    matches, wins = [], np.zeros((3, 3))
    for item in range(900):
        i, j = pairs[item % 3]
        first = rng.random() < 1 / (1 + np.exp(truth[j] - truth[i]))
        matches.append(Match(item, str(i), str(j), (FIRST, SECOND) if first else (SECOND, FIRST)))
        wins[(i, j) if first else (j, i)] += 1
    found = table(("0", "1", "2"), tuple(matches))
    theta = strengths(wins)
    p = 1 / (1 + np.exp(theta[None] - theta[:, None]))
    weight = (wins + wins.T) * p * (1 - p)
    covariance = np.linalg.pinv(np.diag(weight.sum(1)) - weight)
    for i in range(3):
        estimate = found.strengths[str(i)]
        assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * math.sqrt(covariance[i, i]), rel=0.12)


def test_strengths_are_resampled_in_parts_that_make_one_whole(monkeypatch):
    entries = {name: [str(random.Random(f"{name}{i}").randrange(4)) for i in range(12)] for name in "abc"}
    whole = play(Preferring(), entries)
    monkeypatch.setattr(tournament, "_BLOCK", 9 * 7)
    assert play(Preferring(), entries) == whole
    assert not math.isnan(whole.strengths["a"].low)


@pytest.mark.parametrize(
    ("entries", "schedule", "error", "said"),
    [
        ({"a": ["1"]}, None, ConfigError, "two players"),
        ({"a": ["1"], "b": ["1", "2"]}, None, DataError, "b has 2 responses and there are 1 items"),
        ({"a": ["1"], "b": "2"}, None, DataError, "b has"),
        (
            {"a": ["1"], "bob": ["2"]},
            [(0, "a", "bo")],
            DataError,
            "'bo', who is no player. Did you mean 'bob'",
        ),
        ({"a": ["1"], "b": ["2"]}, [(1, "a", "b")], DataError, "names item 1, and there are 1"),
        ({"a": ["1"], "b": ["2"]}, [(0, "a", "a")], DataError, "a against itself"),
        ({"a": ["1"], "b": [None]}, [(0, "a", "b")], DataError, "b on item 0, to which it has no response"),
    ],
)
def test_a_tournament_that_cannot_be_held_is_refused(entries, schedule, error, said):
    with pytest.raises(error, match=said.replace("?", r"\?")):
        play(Preferring(), entries, schedule=schedule)


def test_a_grader_of_single_responses_is_refused():
    with pytest.raises(ConfigError, match="scores single responses"):
        play(Length(), {"a": ["1"], "b": ["2"]})


def test_a_tournament_resumes_from_its_journal(tmp_path):
    entries = {name: [str(random.Random(name).random()) for _ in range(5)] for name in "abc"}
    first = play(Preferring(), entries, journal=tmp_path / "j")
    again = Preferring()
    second = play(again, entries, journal=tmp_path / "j")
    assert (second.matches, second.to_dict()) == (first.matches, first.to_dict())
    assert again.asked == []


# -- one comparison


@pytest.mark.parametrize(
    ("results", "orders", "share"),
    [
        ((FIRST, SECOND), (1, 1), 1),
        ((FIRST, FIRST), (1, 0), 0.5),
        ((SECOND, FIRST), (0, 0), 0),
        ((FIRST, TIE), (1, 0.5), 0.75),
        ((TIE, TIE), (0.5, 0.5), 0.5),
        ((FIRST, NONE), (1, None), None),
        ((NONE, NONE), (None, None), None),
        ((FIRST, GraderRank("j", (1, 2, 3))), (1, None), None),  # not of two
        ((FIRST,), (None, None), 1),  # looks at both orders and says nothing of each
        (
            (
                GraderRank(
                    "j", (1, 1), "", {"orders": {"forward": {"verdict": "A"}, "swapped": {"verdict": "B"}}}
                ),
            ),
            (1, 0),
            0.5,
        ),
        (
            (GraderRank("j", (2, 1), "", {"orders": {"forward": {"verdict": None}, "swapped": 3}}),),
            (None, None),
            0,
        ),
    ],
)
def test_both_orders_make_one_share(results, orders, share):
    match = Match(0, "a", "b", results)
    assert (match.orders, match.share) == (orders, share)


# -- rankings


responses = st.lists(st.integers(0, 4).map(str), min_size=1, max_size=5)


@settings(max_examples=40)
@given(st.lists(responses, max_size=4), st.booleans())
def test_ranking_by_pairs_is_ranking_by_quality(lists, both):
    grader = BothOrders(bias=0.5) if both else Preferring(bias=0.5)
    rankings = GradingRunner({"j": grader}).rank([{"responses": found} for found in lists])["j"]
    for found, ranking in zip(lists, rankings, strict=True):
        values = [int(value) for value in found]
        assert ranking.ranks == tuple(1 + sum(other > value for other in values) for value in values)
        assert [values[i] for i in ranking.order] == sorted(values, reverse=True)
        assert ranking.best == values.index(max(values))
        assert ranking.tied == tuple(i for i, value in enumerate(values) if value == max(values))
        assert bool(ranking.reason) == (len(values) == 1)


@settings(max_examples=40)
@given(st.lists(st.lists(st.text("a", max_size=4), min_size=1, max_size=5), max_size=4))
def test_ranking_by_scores_is_ranking_by_scores(lists):
    runner = GradingRunner({"long": Length(), "judge": Preferring()})
    items = [{"responses": found, "query": "q"} for found in lists]
    rankings = GradingRunner({"long": Length()}).rank(items)["long"]
    for found, ranking in zip(lists, rankings, strict=True):
        assert ranking.values == tuple(map(len, found))
        assert len(found[ranking.best]) == max(map(len, found))
    assert list(runner.grader_configs) == ["long", "judge"]


def test_graders_of_both_kinds_rank_side_by_side():
    runner = GradingRunner({"judge": Preferring(), "long": Length()})
    found = runner.rank([{"responses": ["1", "22", "3"]}, {"responses": ["1"]}])
    assert list(found) == ["judge", "long"]
    assert found["judge"][0].ranks == (3, 1, 2)
    assert found["long"][0].ranks == (2, 1, 2)
    assert found["judge"][1].best == found["long"][1].best == 0


def test_what_has_no_verdict_is_named_and_not_ranked():
    [ranking] = GradingRunner({"a": Length(fails={"x": 9})}).rank([{"responses": ["x", "yy", "z"]}])["a"]
    assert (ranking.ranks, ranking.best) == ((None, 1, 2), 1)
    assert ranking.reason == "response 0 has no score: x came too late"
    [ranking] = GradingRunner({"a": Preferring(broken=[("1", "2")])}).rank([{"responses": ["1", "2", "3"]}])[
        "a"
    ]
    assert ranking.reason == "responses 0 and 1 have no verdict in both orders (unparsable)"
    assert (ranking.best, ranking.values) == (2, (0, 0, 1))
    [ranking] = GradingRunner({"a": Length(fails={"x": 9})}).rank([{"responses": ["x", "x"]}])["a"]
    assert (ranking.best, ranking.order, ranking.tied) == (None, (), ())


def test_full_round_robins_rank_as_their_strengths():
    """Where everyone meets everyone as often, the order of the wins is that of the strengths."""
    rng = random.Random(0)
    for _ in range(50):
        matches = [
            Match(0, str(i), str(j), tuple(rng.choice([FIRST, SECOND, TIE]) for _ in range(2)))
            for i, j in itertools.combinations(range(4), 2)
        ]
        theta = [table(tuple("0123"), tuple(matches), resamples=2).strengths[p].value for p in "0123"]
        if not any(map(math.isnan, theta)):
            ranking = rank_matches(matches, 4)
            assert sorted(range(4), key=lambda i: (-round(theta[i], 9), i)) == list(ranking.order)


def test_a_mapper_is_given_the_responses():
    config = GraderConfig(Preferring(), {"responses": "responses", "query": "input.0.content"})
    [ranking] = GradingRunner({"j": config}).rank([{"input": [{"content": "q"}], "responses": ["1", "2"]}])[
        "j"
    ]
    assert ranking.best == 1


@pytest.mark.parametrize("item", [{"responses": []}, {"responses": "text"}, {}, {"responses": None}])
def test_an_item_without_responses_is_refused(item):
    with pytest.raises(DataError, match="item 1 has no list of responses"):
        GradingRunner({"j": Preferring()}).rank([{"responses": ["1"]}, item])


def test_an_item_that_is_no_mapping_is_refused():
    with pytest.raises(DataError, match="item 0 is a str"):
        GradingRunner({"j": Preferring()}).rank(["1"])
