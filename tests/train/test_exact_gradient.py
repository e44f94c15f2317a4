"""The exact objective beside plain enumeration, finite differences and sampling."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.models.forest import forest_attention, plant
from rm_gallery.core.rewards import RewardConfig, log_score, rps
from rm_gallery.core.rewards.scoring import RULES
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from rm_gallery.core.train.local.exact import verdict_log_probs
from rm_gallery.core.train.local.exact_objective import Objective, divergence, entropy
from tests.train.exact_parts import (
    VERDICTS,
    all_answers,
    flat_gradient,
    log_prob,
    smallest_model,
    tree,
)

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [(0, 1, 2), (0, 1, 2, 4), (3,), (4, 4, 1, 0, 2)]
TRUTHS = torch.tensor([1, 0, 2, 1])
PAYS = ["exp_decay", "rps", "log_score"]
INVALID = -0.3


def objective(name: str, kl_coef: float = 0.2) -> Objective:
    """Over three verdicts, as those of the smallest model."""
    table = torch.tensor([[1.0, 0.4, 0.1], [0.4, 1.0, 0.4], [0.1, 0.4, 1.0]]).double()
    rule = RULES.get(name)
    errors = torch.tensor([[0.0, 1, 2, 2], [1, 0, 1, 2], [2, 1, 0, 2]]).double()
    return Objective(None if rule else table, errors, rule, (0, 1, 2), INVALID, kl_coef)


def packed(model, prompts=PROMPTS) -> torch.Tensor:
    """(P, K) of all prompts in one row."""
    ordered = sorted(prompts)
    with forest_attention(model):
        found = verdict_log_probs(model, plant(ordered, tree()), tree())
    return found[[ordered.index(prompt) for prompt in prompts]]


def one_by_one(model, prompts=PROMPTS) -> torch.Tensor:
    return torch.stack([torch.stack([log_prob(model, x, v) for v in VERDICTS]) for x in prompts])


def loss_by_hand(log_probs: torch.Tensor, reference: torch.Tensor, name: str, kl_coef: float) -> torch.Tensor:
    """The docstring's formula in loops."""
    total = torch.zeros((), dtype=torch.float64)
    for p, q, t in zip(log_probs.exp(), reference.exp(), TRUTHS.tolist(), strict=True):
        other, other_q = 1 - p.sum(), 1 - q.sum()
        if name == "exp_decay":
            table = objective(name).rewards
            reward = sum(p[v] * table[t, v] for v in range(3)) + other * INVALID
        elif name == "rps":
            wrong = [(p[2] + p[1] if t == 0 else p[0]) + other, (p[2] if t < 2 else p[0] + p[1]) + other]
            reward = 1 - (wrong[0] ** 2 + wrong[1] ** 2) / 2
        else:
            reward = 1 + p[t].log() / 20
        kl = sum(p[v] * (p[v] / q[v]).log() for v in range(3)) + other * (other / other_q).log()
        total = total + reward - kl_coef * kl
    return -total / len(TRUTHS)


@pytest.mark.parametrize("name", PAYS)
def test_loss_and_gradient_equal_the_enumeration_of_verdicts_one_by_one(name: str) -> None:
    model, start = smallest_model(0), smallest_model(1)
    with torch.no_grad():
        reference = one_by_one(start)
    plain = loss_by_hand(one_by_one(model), reference, name, 0.2)
    plain.backward()
    expected = flat_gradient(model)
    loss, _ = objective(name)(packed(model), TRUTHS, packed(start).detach())
    loss.backward()
    torch.testing.assert_close(loss, plain, atol=1e-7, rtol=1e-6)  # logits are float32
    gradient = flat_gradient(model)
    assert expected.norm() > 1e-3
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", PAYS)
def test_the_gradient_equals_finite_differences(name: str) -> None:
    model, start = smallest_model(2), smallest_model(3)
    with torch.no_grad():
        reference = one_by_one(start)
    pay = objective(name)
    pay(packed(model), TRUTHS, reference)[0].backward()
    gradient = flat_gradient(model)
    torch.manual_seed(0)
    for _ in range(5):
        step = torch.randn_like(gradient)
        values = []
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            at = 0
            with torch.no_grad():
                for p in moved.parameters():
                    p += sign * 1e-5 * step[at : at + p.numel()].view_as(p)
                    at += p.numel()
                values.append(pay(one_by_one(moved), TRUTHS, reference)[0])
        slope = float(values[0] - values[1]) / 2e-5
        assert float(gradient @ step) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", PAYS)
def test_what_else_is_packed_and_in_which_order_changes_nothing(name: str) -> None:
    model, start = smallest_model(4), smallest_model(5)
    pay = objective(name)

    def run(parts: list[list[int]]) -> tuple[float, torch.Tensor]:
        loss = 0.0
        for part in parts:
            prompts = [PROMPTS[i] for i in part]
            ours, theirs = packed(model, prompts), packed(start, prompts).detach()
            each = pay(ours, TRUTHS[part], theirs)[0] * len(part) / len(PROMPTS)
            each.backward()
            loss += float(each.detach())
        return loss, flat_gradient(model)

    whole = run([[0, 1, 2, 3]])
    for parts in ([[3, 1, 0, 2]], [[0, 1], [2, 3]], [[2, 0], [1, 3]], [[0], [1], [2], [3]]):
        other = run(parts)
        assert other[0] == pytest.approx(whole[0], abs=1e-6)
        torch.testing.assert_close(other[1], whole[1], atol=1e-6, rtol=1e-5)


# -- sampling


def policy_gradients(model) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of all A answers to one prompt: probabilities (A,), rewards (A,), and gradients of log p (A, weights)."""
    prompt, truth = PROMPTS[0], 1
    pay, gradients, logs = objective("exp_decay"), [], []
    for answer in all_answers():
        each = log_prob(model, prompt, answer)
        each.backward()
        gradients.append(flat_gradient(model))
        logs.append(each.detach())
    table = dict(zip(VERDICTS, pay.rewards[truth].tolist(), strict=True))
    rewards = torch.tensor([table.get(answer, INVALID) for answer in all_answers()]).double()
    return torch.stack(logs).exp(), rewards, torch.stack(gradients)


def exact_gradient(model) -> torch.Tensor:
    loss, _ = objective("exp_decay", kl_coef=0)(packed(model, PROMPTS[:1]), TRUTHS[:1])
    (-loss).backward()
    return flat_gradient(model)


@pytest.fixture(scope="module")
def enumerated():
    torch.set_num_threads(1)
    model = smallest_model(6)
    p, rewards, gradients = policy_gradients(model)
    assert float(p.sum()) == pytest.approx(1, abs=1e-9), "they are all it can write"
    assert 0.02 < float(p[rewards > INVALID].sum()) < 0.98
    return p, rewards, gradients, exact_gradient(model)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_reinforce_has_the_exact_gradient_as_its_expectation(enumerated, baseline: float) -> None:
    p, rewards, gradients, exact = enumerated
    torch.testing.assert_close(((rewards - baseline) * p) @ gradients, exact, atol=1e-6, rtol=1e-4)


def test_grpos_gradient_converges_to_the_exact_one_as_one_over_the_square_root_of_n(enumerated) -> None:
    """GRPO without clipping and without division by the standard deviation: reward minus the group's mean.

    Its expectation is (n - 1)/n of the exact one, since each sample is part of its own baseline. The root mean square
    error over 400 seeded groups is predicted by the covariance of one sample, not just fitted.
    """
    p, rewards, gradients, exact = enumerated
    centred = (rewards - (p * rewards).sum())[:, None] * gradients
    variance = float((p[:, None] * (centred - exact) ** 2).sum())
    generator = torch.Generator().manual_seed(0)
    found = {}
    for n in (16, 256, 4096):
        errors = []
        for _ in range(400):
            drawn = torch.multinomial(p, n, replacement=True, generator=generator)
            counts = torch.bincount(drawn, minlength=len(p)).double()
            mean = (counts @ rewards) / n
            estimate = (counts * (rewards - mean)) @ gradients / n
            errors.append(float(((estimate - exact) ** 2).sum()))
        found[n] = math.sqrt(sum(errors) / len(errors))
        assert found[n] == pytest.approx(math.sqrt(variance / n), rel=0.25 if n == 16 else 0.12)
    assert found[16] / found[4096] == pytest.approx(16, rel=0.25), (
        "256 times the samples, a sixteenth of the error"
    )


# -- the parts


def shares(size: int):
    """Distributions over `size` outcomes."""
    return st.lists(st.floats(0.001, 1), min_size=size, max_size=size).map(
        lambda x: torch.tensor([v / sum(x) for v in x], dtype=torch.float64)
    )


@given(p=shares(6), q=shares(6))
def test_kl_over_lumped_outcomes_is_never_more_than_that_of_the_whole(p, q) -> None:
    """The last four outcomes are what else can be written."""
    whole = float((p * (p / q).log()).sum())
    lumped = float(divergence(p[None, :2].log(), q[None, :2].log()))
    assert -1e-12 <= lumped <= whole + 1e-12
    assert float(divergence(p[None, :2].log(), p[None, :2].log())) == 0


@given(p=shares(4))
def test_entropy_is_that_of_verdicts_and_anything_else(p) -> None:
    assert float(entropy(p[None, :3].log())) == pytest.approx(float(-(p * p.log()).sum()), abs=1e-9)


@pytest.mark.parametrize("mass", [1.0, 1 + 1e-9])
def test_a_full_mass_is_no_nan_in_loss_or_gradient(mass: float) -> None:
    """Rounding may go a hair beyond 1."""
    logs = (torch.tensor([[0.25, 0.5, 0.25]]).double() * mass).log().requires_grad_()
    loss, figures = objective("exp_decay")(logs, TRUTHS[:1], logs.detach() - 0.01)
    loss.backward()
    assert torch.isfinite(logs.grad).all()
    assert all(torch.isfinite(value) for value in figures.values())


@settings(max_examples=50)
@given(p=shares(6), truth=st.integers(0, 4), name=st.sampled_from(["exp_decay", "linear", "exact"]))
def test_the_figures_are_the_means_of_one_written_answer(p, truth: int, name: str) -> None:
    """By `compute_score` of each verdict's text and of one that is none, weighted."""
    task = PointwiseTask(RewardConfig(name=name, invalid_reward=-0.5))
    _, figures = Objective.of(task, 0.0)(p[None, :5].log(), torch.tensor([truth]))
    texts = [*map(task.format, task.verdicts()), "?"]
    scores = [task.compute_score("t", text, truth) for text in texts]
    for figure, key in (("reward", "score"), ("accuracy", "accuracy"), ("mae", "abs_error")):
        expected = sum(w * s[key] for w, s in zip(p.tolist(), scores, strict=True))
        assert float(figures[figure]) == pytest.approx(expected, abs=1e-9)
    assert float(figures["parse_rate"]) == pytest.approx(1 - float(p[5]), abs=1e-9)


@settings(max_examples=50)
@given(p=shares(4), truth=st.integers(0, 2), name=st.sampled_from(["rps", "log_score"]))
def test_a_rules_reward_in_training_is_that_of_evaluation(p, truth: int, name: str) -> None:
    """Of pairs, whose scale is A, tie, B though they are listed otherwise."""
    task = PairwiseTask(RewardConfig(name=name))
    _, figures = Objective.of(task, 0.0)(p[None, :3].log(), torch.tensor([truth]))
    assert "mae" not in figures
    scored = task.score_distribution(p[:3].tolist(), task.verdicts()[truth])
    assert float(figures["reward"]) == pytest.approx(scored, abs=1e-9)
    rule = {"rps": rps, "log_score": log_score}[name]
    order = [0, 2, 1]
    by_hand = rule(p[order], torch.eye(3).double()[truth][order])
    assert scored == pytest.approx(max(0.0, float(by_hand)), abs=1e-9)
