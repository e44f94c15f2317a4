"""Scoring rules: proper, honest about what is not legal, and the same numbers as elsewhere."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import log_loss

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.evaluate import compute_metrics, score_outputs
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.rewards import RewardConfig, log_score, rps, scoring
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask
from rm_gallery.core.tasks.saved import load_saved_task, save_task

RULES = [rps, log_score]
K = 5


def shares(size: int) -> st.SearchStrategy[np.ndarray]:
    """Distributions over `size` outcomes, none of them impossible."""
    return st.lists(st.floats(0.01, 1), min_size=size, max_size=size).map(lambda x: np.array(x) / sum(x))


def truth(label: int) -> np.ndarray:
    return np.eye(K)[label]


def expected(rule: Any, p: np.ndarray, q: np.ndarray) -> float:
    """What p earns where the label has the distribution q."""
    return float(sum(q[label] * rule(p, truth(label)) for label in range(K)))


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(scoring).failed == 0


@pytest.mark.parametrize("rule", RULES)
@given(q=shares(K), p=shares(K + 1))
def test_no_distribution_earns_more_than_the_true_one(rule: Any, q: np.ndarray, p: np.ndarray) -> None:
    """Proper, and strictly: also beside forecasts that leave some probability to no legal verdict."""
    best, other = expected(rule, q, q), expected(rule, p[:K], q)
    assert other <= best + 1e-12
    if np.abs(p[:K] - q).max() > 0.01:
        assert other < best


@pytest.mark.parametrize("rule", RULES)
@given(p=shares(K + 1), label=st.integers(0, K - 1))
def test_only_certainty_of_the_truth_earns_1(rule: Any, p: np.ndarray, label: int) -> None:
    assert rule(truth(label), truth(label)) == 1
    assert rule(p[:K], truth(label)) < 1


@pytest.mark.parametrize("rule", RULES)
@given(p=shares(K + 1), label=st.integers(0, K - 1), to=st.integers(0, K - 1))
def test_an_illegal_answer_is_worth_no_more_than_any_legal_one(
    rule: Any, p: np.ndarray, label: int, to: int
) -> None:
    moved = p[:K] + p[K] * np.eye(K)[to]
    before, after = rule(p[:K], truth(label)), rule(moved, truth(label))
    assert after >= before - 1e-12
    if to == label:
        assert after > before


@given(label=st.integers(0, K - 1))
def test_nothing_but_illegal_answers_earn_nothing_from_rps(label: int) -> None:
    assert rps(np.zeros(K), truth(label)) == 0


@given(p=shares(K), label=st.integers(0, K - 1))
def test_rps_falls_as_probability_moves_further_from_the_truth(p: np.ndarray, label: int) -> None:
    for v in range(K - 1):
        a, b = (v, v + 1) if v >= label else (v + 1, v)  # from the nearer to the further
        moved = p.copy()
        moved[a], moved[b] = p[a] - 0.005, p[b] + 0.005
        assert rps(moved, truth(label)) < rps(p, truth(label))


@given(p=shares(K), label=st.integers(0, K - 1))
def test_rps_is_one_less_the_metric_of_that_name(p: np.ndarray, label: int) -> None:
    row = {
        "input": [{"role": "user", "content": "q"}],
        "output": {"content": "r", "label": {}},
        "helpfulness": label,
    }
    task = PointwiseTask(RewardConfig(name="rps"))
    figures = compute_metrics(
        score_outputs(task, [row], [Answer(0, probabilities=tuple(p.tolist()), mass=1.0)])
    )
    assert figures["reward"] == pytest.approx(1 - figures["rps"], abs=1e-9)
    assert float(rps(p, truth(label))) == pytest.approx(1 - figures["rps"], abs=1e-9)


@given(p=shares(K), label=st.integers(0, K - 1))
def test_log_score_is_scikit_learns_log_loss(p: np.ndarray, label: int) -> None:
    loss = log_loss([label], [p / p.sum()], labels=range(K))
    assert float(log_score(p / p.sum(), truth(label))) == pytest.approx(
        1 - loss / scoring.LOG_LIMIT, abs=1e-9
    )


@pytest.mark.parametrize("rule", RULES)
@given(p=shares(K + 1), label=st.integers(0, K - 1))
def test_arrays_and_tensors_score_alike(rule: Any, p: np.ndarray, label: int) -> None:
    both = np.stack([p[:K], p[1:]])
    of_tensors = rule(torch.tensor(both), torch.tensor(np.stack([truth(label)] * 2)))
    np.testing.assert_allclose(of_tensors.numpy(), [rule(each, truth(label)) for each in both], atol=1e-12)


# -- as the reward of a task


def test_a_written_verdict_counts_as_certainty() -> None:
    ranked = PointwiseTask(RewardConfig(name="rps"))
    assert [ranked.compute_score("t", f"<score>{v}</score>", 1)["score"] for v in range(5)] == [
        0.75, 1.0, 0.75, 0.5, 0.25,
    ]  # fmt: skip
    assert ranked.compute_score("t", "?", 1)["score"] == 0.0
    likely = PointwiseTask(RewardConfig(name="log_score"))
    assert [likely.reward(v, 1) for v in range(3)] == [0.0, 1.0, 0.0]


def test_a_tie_lies_between_the_preferences() -> None:
    task = PairwiseTask(RewardConfig(name="rps"))
    assert [task.reward(v, "A") for v in ("A", "tie", "B")] == [1.0, 0.5, 0.0]
    assert task.score_distribution([0.5, 0.5, 0.0], "tie") == pytest.approx(
        1 - (0.25 + 0.25) / 2
    )  # A, B, tie


@given(p=shares(K), mass=st.floats(0, 1), label=st.integers(0, K - 1))
def test_an_evaluated_distribution_counts_with_its_mass(p: np.ndarray, mass: float, label: int) -> None:
    assume(mass > 1e-6)
    row = {
        "input": [{"role": "user", "content": "q"}],
        "output": {"content": "r", "label": {}},
        "helpfulness": label,
    }
    for name, rule in (("rps", rps), ("log_score", log_score)):
        task = PointwiseTask(RewardConfig(name=name))
        answer = Answer(0, probabilities=tuple((p / p.sum()).tolist()), mass=mass)
        [reward] = score_outputs(task, [row], [answer]).reward
        assert reward == pytest.approx(max(0.0, float(rule(mass * p / p.sum(), truth(label)))), abs=1e-9)
        assert 0 <= reward <= 1


def test_a_rule_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="'rps', which cannot score this task's verdicts"):
        MultiDimensionTask(RewardConfig(name="rps"))
    with pytest.raises(ConfigError, match="needs the verdicts of a task"):
        RewardConfig(name="rps").build("exact")
    with pytest.raises(ConfigError, match=r"Did you mean 'log_score'\?"):
        PointwiseTask(RewardConfig(name="log_scor"))
    with pytest.raises(ValidationError, match="invalid_reward has no effect with reward"):
        RewardConfig(name="log_score", invalid_reward=-1)


def test_a_saved_judge_keeps_its_rule(tmp_path: Any) -> None:
    save_task(tmp_path, "pointwise", PointwiseTask(RewardConfig(name="rps")))
    saved = load_saved_task(tmp_path)
    assert saved is not None
    assert saved.task.reward(0, 4) == 0.0
    assert math.isclose(saved.task.score_distribution([0, 0, 0, 0.5, 0.5], 4), 1 - 0.25 / 4)
