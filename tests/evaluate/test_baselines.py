"""Baselines: the published facts about HelpSteer2, and that none of them looks at what it is judged on."""

from __future__ import annotations

import builtins

import pytest

from rm_gallery.core.evaluate import compute_baselines, compute_metrics
from rm_gallery.core.evaluate.baselines import ON_EVALUATED, constant_reward
from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask, get_task

from .helpers import helpsteer_pairs, helpsteer_rows, pair_row, sample_row


def by_name(task, rows, train=None):
    return {found.name: found for found in compute_baselines(task, rows, train)}


def test_the_facts_about_helpsteer2(shared_data):
    rows = helpsteer_rows(shared_data / "helpsteer2" / "validation.jsonl.gz")
    found = by_name(PointwiseTask(), rows)
    assert len(rows) == 520
    assert set(found["majority"].predictions.predicted) == {4}
    assert compute_metrics(found["majority"].predictions)["accuracy"] == pytest.approx(0.4038, abs=5e-5)
    assert set(found["best_constant"].predictions.predicted) == {3}
    assert compute_metrics(found["best_constant"].predictions)["reward"] == pytest.approx(0.6784, abs=5e-5)

    longer = by_name(PairwiseTask(), helpsteer_pairs(rows))["length"].predictions
    assert sum(truth != "tie" for truth in longer.truth) == 181
    assert compute_metrics(longer)["accuracy_untied"] == pytest.approx(0.613, abs=5e-4)


def test_constants_are_chosen_on_the_training_rows_where_there_are_some():
    train = [sample_row(i, 1) for i in range(9)]
    rows = [sample_row(i, 4) for i in range(9)]
    with_train, without = by_name(PointwiseTask(), rows, train), by_name(PointwiseTask(), rows)
    assert set(with_train["majority"].predictions.predicted) == {1}
    assert with_train["majority"].note == ""
    assert set(without["majority"].predictions.predicted) == {4}
    assert without["majority"].note == without["best_constant"].note == ON_EVALUATED


def test_the_prior_answers_with_the_shares_of_the_training_labels():
    train = [sample_row(i, label) for i, label in enumerate([1, 1, 1, 4])]
    found = by_name(PointwiseTask(), [sample_row(i, 4) for i in range(3)], train)["prior"]
    assert set(found.predictions.probabilities) == {(0, 0.75, 0, 0, 0.25)}
    assert set(found.predictions.predicted) == {1}
    assert found.note == ""
    # the mean of (0.75, 0.75)² over the label 4, which is never the likeliest
    assert compute_metrics(found.predictions)["brier"] == pytest.approx(2 * 0.75**2, abs=1e-12)


def test_the_labels_of_the_evaluated_rows_change_no_fitted_answer():
    words = ["good answer with many words here", "bad", "fair enough", "a short one"]
    train = [sample_row(i, i % 5, response=words[i % 4] * (i % 7 + 1)) for i in range(60)]
    rows = [sample_row(i, 0, response=words[i % 4]) for i in range(20)]
    other = [sample_row(i, 4, response=words[i % 4]) for i in range(20)]
    one, two = by_name(PointwiseTask(), rows, train), by_name(PointwiseTask(), other, train)
    assert set(one) == {"majority", "best_constant", "prior", "length", "tfidf"}
    for name, found in one.items():
        assert found.predictions.predicted == two[name].predictions.predicted, name


def test_without_training_rows_a_prompts_label_never_decides_its_own_length_verdict():
    rows = [sample_row(i, i % 5, response="word " * (i + 1)) for i in range(50)]
    before = by_name(PointwiseTask(), rows)["length"]
    rows[10] = sample_row(10, 4 - rows[10]["helpfulness"], response="word " * 11)
    assert (
        by_name(PointwiseTask(), rows)["length"].predictions.predicted[10] == before.predictions.predicted[10]
    )
    assert "cross-fitted" in before.note


def test_a_response_length_that_decides_the_label_is_learnt():
    rows = [sample_row(i, min(i // 20, 4), response="word " * (i + 1)) for i in range(100)]
    assert compute_metrics(by_name(PointwiseTask(), rows, rows)["length"].predictions)["accuracy"] == 1


def test_without_sklearn_tfidf_says_that_it_was_not_computed(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    rows = [sample_row(i, i % 5) for i in range(10)]
    found = by_name(PointwiseTask(), rows, rows)["tfidf"]
    assert found.predictions is None
    assert found.note.startswith("not computed: scikit-learn is not installed")


def test_responses_of_the_same_length_are_a_tie_to_the_length_rule():
    found = by_name(PairwiseTask(), [pair_row(0, "A", a="one two", b="two one")])["length"]
    assert found.predictions.predicted == ("tie",)


DIMENSIONS = get_task("multi_dimension", dimensions={"helpfulness": 2.0, "verbosity": 1.0})


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (PointwiseTask(), [sample_row(i, label) for i, label in enumerate([0, 3, 3, 4, 4, 4])]),
        (PairwiseTask(), [pair_row(i, label) for i, label in enumerate(["A", "B", "B", "tie"])]),
        (DIMENSIONS, [{**sample_row(i, i % 5), "verbosity": (i * i) % 5} for i in range(7)]),
    ],
    ids=["scores", "pairs", "dimensions"],
)
def test_a_constant_earns_what_the_best_one_does_and_no_verdict_more(task, rows):
    truths = [task.truth(row) for row in rows]
    known = constant_reward(task, truths, ["unknown"] * len(rows))
    best = by_name(task, rows)["best_constant"].predictions
    assert known == pytest.approx(compute_metrics(best)["reward"], abs=1e-12)
    each = [sum(task.reward(verdict, truth, "unknown") for truth in truths) for verdict in task.verdicts()]
    assert known == pytest.approx(max(each) / len(rows), abs=1e-12)


@pytest.mark.parametrize("rule", ["rps", "log_score"])
def test_of_a_scoring_rule_the_constant_is_the_labels_shares(rule):
    task = PointwiseTask(RewardConfig(name=rule))
    rows = [sample_row(i, label) for i, label in enumerate([0, 3, 3, 4, 4, 4])]
    truths = [task.truth(row) for row in rows]
    known = constant_reward(task, truths, ["unknown"] * len(rows))
    prior = by_name(task, rows)["prior"].predictions
    assert known == pytest.approx(compute_metrics(prior)["reward"], abs=1e-12)
    others = [(0.2,) * 5, (0, 0, 0, 0, 1.0), (0.1, 0.1, 0.2, 0.3, 0.3)]
    for shares in others:
        assert known > sum(task.score_distribution(shares, truth) for truth in truths) / len(rows)
