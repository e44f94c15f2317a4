"""Metrics: agreement with reference implementations, the symmetries they must have, and degenerate inputs."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import cohen_kappa_score, f1_score

from rm_gallery.core.evaluate import PAIRWISE, POINTWISE, compute_metrics, metric_names, score_outputs
from rm_gallery.core.evaluate.calibration import CALIBRATION
from rm_gallery.core.tasks import PairwiseTask

from .helpers import distributions, pair_row, preferences, scores

label = st.integers(0, 4)
verdict = st.integers(-1, 4)
rows_of_scores = st.lists(st.tuples(label, verdict), min_size=1, max_size=40)
rows_with_prompts = st.lists(st.tuples(label, verdict, st.integers(0, 6)), min_size=1, max_size=30)
preference = st.sampled_from(["A", "B", "tie"])
RANKS, PAIRS = ("spearman", "kendall"), ("pairwise_accuracy", "pairwise_accuracy_half")
MIRROR = {"A": "B", "B": "A", "tie": "tie", None: None}


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) < 1e-12


@settings(max_examples=150)
@given(rows_of_scores)
def test_pointwise_metrics_agree_with_reference_implementations(pairs):
    assert_agrees(*(np.array(column) for column in zip(*pairs, strict=True)))


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("verdict", [3, 2, -1])
@pytest.mark.parametrize("labels", ["one", "several"])
def test_they_agree_where_all_rows_are_alike_and_warn_of_nothing(rows, verdict, labels):
    truth = np.full(rows, 3) if labels == "one" else np.arange(rows) % 5
    assert_agrees(truth, np.full(rows, verdict))
    assert_agrees(truth, truth)


def assert_agrees(truth, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute_metrics(scores(truth, predicted))
    parsed = predicted >= 0
    t, p = truth[parsed], predicted[parsed]
    error = np.where(parsed, np.abs(truth - predicted), 4)
    assert tuple(found) == tuple(name for name in POINTWISE if name not in CALIBRATION)
    assert same(found["accuracy"], np.mean(truth == predicted))
    assert same(found["within_1"], np.mean(error <= 1))
    assert same(found["mae"], np.mean(error))
    assert same(found["mae_parsed"], np.abs(t - p).mean() if len(t) else math.nan)
    assert same(found["parse_rate"], parsed.mean())
    assert found["invalid"] == (~parsed).sum()
    reward = np.where(parsed, np.exp(-2 * np.abs(truth - predicted) / 4), 0.0)
    assert same(found["reward"], reward.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both warn on what we return as NaN
        one_class = len(set(t.tolist()) | set(p.tolist())) < 2
        kappa = math.nan if one_class else cohen_kappa_score(t, p, weights="quadratic", labels=range(5))
        rho = spearmanr(t, p).statistic if len(t) > 1 else math.nan
        tau = kendalltau(t, p, variant="b").statistic if len(t) > 1 else math.nan
    assert same(found["kappa"], kappa)
    assert same(found["spearman"], rho)
    assert same(found["kendall"], tau)
    occurring = sorted(set(truth.tolist()) | set(p.tolist()))
    f1 = f1_score(truth, predicted, labels=occurring, average="macro", zero_division=0)
    assert same(found["macro_f1"], f1)


@settings(max_examples=150)
@given(rows_with_prompts)
def test_pairwise_accuracy_agrees_with_looking_at_every_pair(rows):
    truth, predicted, prompts = zip(*rows, strict=True)
    found = compute_metrics(scores(truth, predicted, prompts))
    assert_ranks(found, truth, [math.nan if p < 0 else p for p in predicted], prompts)


@settings(max_examples=100)
@given(rows_with_prompts, st.integers(0, 2**31))
def test_within_a_prompt_a_distribution_ranks_by_its_mean(rows, seed):
    truth, drawn, prompts = zip(*rows, strict=True)
    # of few values, so that means tie; -1 stands for no answer
    chosen = np.random.default_rng(seed).dirichlet(np.ones(5), 3)
    probabilities = [None if v < 0 else chosen[v % 3] for v in drawn]
    found = compute_metrics(distributions(truth, probabilities, prompts))
    assert_ranks(
        found, truth, [math.nan if p is None else float(np.dot(p, range(5))) for p in probabilities], prompts
    )


def assert_ranks(found, truth, numbers, prompts):
    pairs = [
        (truth[i] - truth[j], numbers[i] - numbers[j])
        for i in range(len(truth))
        for j in range(i)
        if prompts[i] == prompts[j] and truth[i] != truth[j]
    ]
    right = sum(better * higher > 0 for better, higher in pairs)
    tied = sum(higher == 0 for _, higher in pairs)
    left = len(pairs) - tied
    assert same(found["pairwise_accuracy"], right / left if left else math.nan)
    half = (right + tied / 2) / len(pairs) if pairs else math.nan
    assert same(found["pairwise_accuracy_half"], half)


def test_no_answer_to_one_of_two_is_a_pair_ranked_wrongly():
    found = compute_metrics(scores([4, 0], [4, -1], [0, 0]))
    assert found["pairwise_accuracy"] == found["pairwise_accuracy_half"] == 0


@settings(max_examples=100)
@given(
    st.lists(st.tuples(preference, preference | st.none(), preference | st.none()), min_size=1, max_size=25)
)
def test_pairwise_metrics_agree_with_their_definitions(groups):
    truth = [t for first, *_ in groups for t in (first, MIRROR[first])]
    predicted = [p for _, *both in groups for p in both]
    found = compute_metrics(preferences(truth, predicted))
    assert tuple(found) == tuple(name for name in PAIRWISE if name not in CALIBRATION)
    right = [t == p for t, p in zip(truth, predicted, strict=True)]
    untied = [r for r, t in zip(right, truth, strict=True) if t != "tie"]
    both = [(a, b) for _, a, b in groups if a is not None and b is not None]
    decided = [p for p in predicted if p in ("A", "B")]
    assert same(found["accuracy"], np.mean(right))
    assert same(found["reward"], np.mean(right))
    assert same(found["accuracy_untied"], np.mean(untied) if untied else math.nan)
    assert same(found["flip_rate"], np.mean([b != MIRROR[a] for a, b in both]) if both else math.nan)
    assert same(found["two_order_agreement"], sum(b == MIRROR[a] for a, b in both) / len(groups))
    assert same(found["two_order_accuracy"], np.mean([a == t and b == MIRROR[t] for t, a, b in groups]))
    assert same(found["first_position_rate"], np.mean([p == "A" for p in decided]) if decided else math.nan)
    shown = ["invalid" if p is None else p for p in predicted]
    occurring = sorted((set(truth) | set(shown)) - {"invalid"})
    expected = f1_score(truth, shown, labels=occurring, average="macro", zero_division=0)
    assert same(found["macro_f1"], expected)


@settings(max_examples=50)
@given(rows_of_scores, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(pairs, random):
    before = scores(*zip(*pairs, strict=True))
    order = list(range(len(pairs)))
    random.shuffle(order)
    after = compute_metrics(before.take(order))
    assert all(same(value, after[name]) for name, value in compute_metrics(before).items())


@settings(max_examples=50)
@given(st.lists(st.tuples(preference, preference | st.none()), min_size=2, max_size=30))
def test_swapping_every_pair_changes_only_the_first_position_rate(pairs):
    def judged(rows):
        texts = [f"<preference>{p}</preference>" if p else "" for _, p in rows]
        return compute_metrics(
            score_outputs(PairwiseTask(), [pair_row(i, t) for i, (t, _) in enumerate(rows)], texts)
        )

    before = judged(pairs)
    after = judged([(MIRROR[t], MIRROR[p]) for t, p in pairs])
    assert same(after.pop("first_position_rate"), 1 - before.pop("first_position_rate"))
    assert all(same(value, after[name]) for name, value in before.items())


def test_a_perfect_judge_is_perfect():
    found = compute_metrics(scores([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]))
    perfect = ("reward", "accuracy", "within_1", "kappa", "spearman", "kendall", "macro_f1", "parse_rate")
    assert [found[name] for name in perfect] == pytest.approx([1.0] * 8, abs=1e-12)
    assert found["mae"] == found["invalid"] == 0
    pairs = compute_metrics(preferences(["A", "B", "tie", "tie"], ["A", "B", "tie", "tie"]))
    assert pairs["accuracy"] == pairs["accuracy_untied"] == pairs["macro_f1"] == 1
    assert pairs["flip_rate"] == 0


@pytest.mark.parametrize(
    ("truth", "predicted", "undefined", "why"),
    [
        ([1, 2], [-1, -1], {"mae_parsed", "kappa", *RANKS}, "nothing parsed: not 0 and not 4"),
        (
            [3, 3],
            [3, 3],
            {"kappa", *RANKS, *PAIRS},
            "one label: agreement by chance is certain, nothing to rank",
        ),
        (
            [3, 3, 2],
            [3, 3, 3],
            {*RANKS, "pairwise_accuracy"},
            "constant verdicts: kappa is 0, all scores tied",
        ),
        ([2, 3], [2, 3], set(), "nothing undefined"),
    ],
)
def test_what_is_undefined_is_nan(truth, predicted, undefined, why):
    found = compute_metrics(scores(truth, predicted, [0] * len(truth)))
    assert {name for name, value in found.items() if math.isnan(value)} == undefined, why


def test_a_constant_judge_has_kappa_zero():
    assert compute_metrics(scores([0, 1, 2, 3, 4], [4] * 5))["kappa"] == pytest.approx(0, abs=1e-12)


def test_pairs_without_their_mirror_have_no_flip_rate():
    rows = [pair_row(i, "A") for i in range(3)]
    found = compute_metrics(score_outputs(PairwiseTask(), rows, ["<preference>A</preference>"] * 3))
    orders = ("flip_rate", "two_order_accuracy", "two_order_agreement")
    assert all(math.isnan(found[name]) for name in orders)
    assert found["first_position_rate"] == 1


def test_a_judge_that_always_says_a_flips_on_every_group():
    found = compute_metrics(preferences(["A", "B"] * 4, ["A"] * 8))
    assert found["flip_rate"] == 1
    assert found["accuracy"] == 0.5
    assert found["two_order_accuracy"] == found["two_order_agreement"] == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(preference, preference), min_size=1, max_size=20))
def test_a_judge_blind_to_the_order_never_flips_whatever_the_data(pairs):
    truth = [t for first, _ in pairs for t in (first, MIRROR[first])]
    found = compute_metrics(preferences(truth, [p for _, v in pairs for p in (v, MIRROR[v])]))
    assert (found["flip_rate"], found["two_order_agreement"]) == (0, 1)
    assert same(found["two_order_accuracy"], found["accuracy"])
    decided = [v for _, v in pairs if v != "tie"]
    assert same(found["first_position_rate"], 0.5 if decided else math.nan)


def test_metrics_of_distributions_appear_only_where_there_is_one():
    plain, full = scores([1, 2], [1, 2]), distributions([1, 2], [None, [0.2] * 5])
    assert set(metric_names(full)) - set(metric_names(plain)) == set(CALIBRATION)
    assert metric_names(full) == POINTWISE == tuple(compute_metrics(full))
