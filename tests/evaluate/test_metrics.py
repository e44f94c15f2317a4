"""Metrics: agreement with reference implementations, the symmetries they must have, and degenerate inputs."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, f1_score

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate import PAIRWISE, POINTWISE, compute_metrics, score_outputs
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask

from .helpers import pair_row, preferences, sample_row, scores

label = st.integers(0, 4)
verdict = st.integers(-1, 4)
rows_of_scores = st.lists(st.tuples(label, verdict), min_size=1, max_size=40)
preference = st.sampled_from(["A", "B", "tie"])
MIRROR = {"A": "B", "B": "A", "tie": "tie", None: None}


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) < 1e-12


@settings(max_examples=150, deadline=None)
@given(rows_of_scores)
def test_pointwise_metrics_agree_with_reference_implementations(pairs):
    truth, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    found = compute_metrics(scores(truth, predicted))
    parsed = predicted >= 0
    t, p = truth[parsed], predicted[parsed]
    error = np.where(parsed, np.abs(truth - predicted), 4)
    assert tuple(found) == POINTWISE
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
    assert same(found["kappa"], kappa)
    assert same(found["spearman"], rho)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(preference, preference | st.none(), preference | st.none()), min_size=1, max_size=25)
)
def test_pairwise_metrics_agree_with_their_definitions(groups):
    truth = [t for first, *_ in groups for t in (first, MIRROR[first])]
    predicted = [p for _, *both in groups for p in both]
    found = compute_metrics(preferences(truth, predicted))
    assert tuple(found) == PAIRWISE
    right = [t == p for t, p in zip(truth, predicted, strict=True)]
    untied = [r for r, t in zip(right, truth, strict=True) if t != "tie"]
    both = [(a, b) for _, a, b in groups if a is not None and b is not None]
    decided = [p for p in predicted if p in ("A", "B")]
    assert same(found["accuracy"], np.mean(right))
    assert same(found["reward"], np.mean(right))
    assert same(found["accuracy_untied"], np.mean(untied) if untied else math.nan)
    assert same(found["flip_rate"], np.mean([b != MIRROR[a] for a, b in both]) if both else math.nan)
    assert same(found["first_position_rate"], np.mean([p == "A" for p in decided]) if decided else math.nan)
    shown = ["invalid" if p is None else p for p in predicted]
    occurring = sorted((set(truth) | set(shown)) - {"invalid"})
    expected = f1_score(truth, shown, labels=occurring, average="macro", zero_division=0)
    assert same(found["macro_f1"], expected)


@settings(max_examples=50, deadline=None)
@given(rows_of_scores, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(pairs, random):
    before = scores(*zip(*pairs, strict=True))
    order = list(range(len(pairs)))
    random.shuffle(order)
    after = compute_metrics(before.take(order))
    assert all(same(value, after[name]) for name, value in compute_metrics(before).items())


@settings(max_examples=50, deadline=None)
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
    perfect = ("reward", "accuracy", "within_1", "kappa", "spearman", "parse_rate")
    assert [found[name] for name in perfect] == pytest.approx([1.0] * 6, abs=1e-12)
    assert found["mae"] == found["invalid"] == 0
    pairs = compute_metrics(preferences(["A", "B", "tie", "tie"], ["A", "B", "tie", "tie"]))
    assert pairs["accuracy"] == pairs["accuracy_untied"] == pairs["macro_f1"] == 1
    assert pairs["flip_rate"] == 0


@pytest.mark.parametrize(
    ("truth", "predicted", "undefined", "why"),
    [
        ([1, 2], [-1, -1], {"mae_parsed", "kappa", "spearman"}, "nothing parsed: not 0 and not 4"),
        ([3, 3], [3, 3], {"kappa", "spearman"}, "one label on both sides: agreement by chance is certain"),
        ([3, 3, 2], [3, 3, 3], {"spearman"}, "constant verdicts: kappa is 0, rank correlation undefined"),
        ([2, 3], [2, 3], set(), "nothing undefined"),
    ],
)
def test_what_is_undefined_is_nan(truth, predicted, undefined, why):
    found = compute_metrics(scores(truth, predicted))
    assert {name for name, value in found.items() if math.isnan(value)} == undefined, why


def test_a_constant_judge_has_kappa_zero():
    assert compute_metrics(scores([0, 1, 2, 3, 4], [4] * 5))["kappa"] == pytest.approx(0, abs=1e-12)


def test_pairs_without_their_mirror_have_no_flip_rate():
    rows = [pair_row(i, "A") for i in range(3)]
    found = compute_metrics(score_outputs(PairwiseTask(), rows, ["<preference>A</preference>"] * 3))
    assert math.isnan(found["flip_rate"])
    assert found["first_position_rate"] == 1


def test_a_judge_that_always_says_a_flips_on_every_group():
    found = compute_metrics(preferences(["A", "B"] * 4, ["A"] * 8))
    assert found["flip_rate"] == 1
    assert found["accuracy"] == 0.5


def test_a_missing_label_is_refused_by_the_name_of_its_row():
    row = sample_row(7, 3)
    row["helpfulness"] = None
    row["output"]["label"] = {}
    with pytest.raises(DataError, match="row-7"):
        score_outputs(PointwiseTask(), [row], ["<score>3</score>"])


def test_each_row_needs_exactly_one_output():
    with pytest.raises(DataError, match="2 rows and 1 outputs"):
        score_outputs(PointwiseTask(), [sample_row(0, 1), sample_row(1, 1)], ["<score>3</score>"])


def test_words_are_those_of_both_responses_of_a_pair():
    found = score_outputs(PairwiseTask(), [pair_row(0, "A", a="one two", b="one two three")], [""])
    assert (found.words, found.words_b, found.predicted) == ((2,), (3,), (None,))


def test_predictions_survive_parquet_and_the_same_ones_give_the_same_bytes(tmp_path):
    for name, before in {
        "scores": scores([1, 4], [-1, 4]),
        "pairs": preferences(["A", "B"], ["tie", None]),
    }.items():
        before.to_parquet(tmp_path / f"{name}.parquet")
        before.to_parquet(tmp_path / f"{name}-again.parquet")
        assert type(before).from_parquet(tmp_path / f"{name}.parquet") == before
        assert (tmp_path / f"{name}.parquet").read_bytes() == (
            tmp_path / f"{name}-again.parquet"
        ).read_bytes()
    assert len(list(tmp_path.iterdir())) == 4  # no temporary file is left


def test_a_file_that_is_not_predictions_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="cannot be read"):
        type(scores([1], [1])).from_parquet(path)
