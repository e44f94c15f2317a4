"""Reasonings sampled and verdicts weighed, beside the enumeration of all that the smallest model can reason and write."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
import torch

from rm_gallery.core.models.forest import forest_attention
from rm_gallery.core.models.reasonings import Asked, Reasoning, Weighed, weigh_reasonings
from rm_gallery.core.train.local.reasoned_loss import ReasonedLoss
from tests.train.exact_parts import (
    END,
    VERDICTS,
    VOCABULARY,
    all_answers,
    flat_gradient,
    log_prob,
    smallest_model,
)
from tests.train.test_exact_gradient import INVALID, PROMPTS, TRUTHS, objective, packed

pytestmark = pytest.mark.usefixtures("one_thread")

CLOSE, ROOM = 4, 2
"""The token that ends a reasoning, and the tokens that one may have."""
PROMPT, TRUTH = PROMPTS[0], 1


def all_reasonings() -> list[Reasoning]:
    """All of one prompt: closed, ended without, or cut off."""
    found = []
    for first in range(VOCABULARY):
        if first in (CLOSE, END):
            found.append((first,))
        else:
            found += [(first, second) for second in range(VOCABULARY)]
    return [Reasoning(z, VERDICTS if z[-1] == CLOSE else None) for z in found]


def weighed(model, asked: Asked) -> Weighed:
    with forest_attention(model):
        return weigh_reasonings(model, asked)


def same(prompt, reasonings) -> Asked:
    return Asked((prompt,) * len(reasonings), tuple(reasonings))


def reasoned_loss(name: str = "exp_decay", *, n: int, kl_coef: float = 0.0, clip: float = 0.2, by_std=False):
    return ReasonedLoss(objective(name, kl_coef), n, clip, by_std)


def expected(model, name: str) -> torch.Tensor:
    """E[V] by enumeration of all reasonings, each by itself."""
    pay, total = objective(name, 0.0), torch.zeros((), dtype=torch.float64)
    truth = torch.tensor([TRUTH])
    for z in all_reasonings():
        chance = log_prob(model, PROMPT, z.tokens).exp()
        if z.verdicts is None:
            value = pay.none(truth)["reward"]
        else:
            logs = torch.stack([log_prob(model, PROMPT + z.tokens, v) for v in VERDICTS])[None]
            value = pay.each(logs, truth)["reward"]
        total = total + chance * value.squeeze()
    return total


def group_gradient(model, reasonings, **options) -> torch.Tensor:
    """Of minus the loss, by our code."""
    asked = same(PROMPT, reasonings)
    truths = torch.full((len(reasonings),), TRUTH)
    loss, _ = reasoned_loss(n=len(reasonings), **options)(asked, weighed(model, asked), truths)
    (-loss).backward()
    return flat_gradient(model)


def pairs(model, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all groups of two: their probabilities, and our gradients."""
    every = all_reasonings()
    with torch.no_grad():
        p = torch.stack([log_prob(model, PROMPT, z.tokens) for z in every]).exp().double()
    assert float(p.sum()) == pytest.approx(1, abs=1e-6), "they are all it can reason"
    chances, gradients = [], []
    for a, b in combinations_with_replacement(range(len(every)), 2):
        chances.append(p[a] * p[b] * (1 if a == b else 2))
        gradients.append(group_gradient(model, [every[a], every[b]], name=name))
    return torch.stack(chances), torch.stack(gradients)


# -- the two that it stands on


@pytest.mark.parametrize("name", ["exp_decay", "rps"])
def test_without_reasoning_it_is_the_exact_objective(name: str) -> None:
    """Loss, gradient and figures, whatever the number of samples."""
    model, start = smallest_model(0), smallest_model(1)
    pay = objective(name, 0.2)
    loss, figures = pay(packed(model), TRUTHS, packed(start).detach())
    loss.backward()
    gradient = flat_gradient(model)
    assert gradient.norm() > 1e-3
    asked = Asked(
        tuple(prompt for prompt in PROMPTS for _ in range(3)), (Reasoning((), VERDICTS),) * (3 * len(PROMPTS))
    )
    with torch.no_grad():
        reference = weighed(start, asked)
    ours, found = ReasonedLoss(pay, 3, 0.2, False)(
        asked, weighed(model, asked), TRUTHS.repeat_interleave(3), reference
    )
    ours.backward()
    torch.testing.assert_close(ours, loss, atol=1e-7, rtol=1e-5)  # float32, summed in another order
    torch.testing.assert_close(flat_gradient(model), gradient, atol=1e-7, rtol=1e-5)
    for key, value in figures.items():
        torch.testing.assert_close(found[key], value, atol=1e-7, rtol=1e-6)


@pytest.fixture(scope="module", params=[6, 11])
def seed(request) -> int:
    torch.set_num_threads(1)
    return request.param


@pytest.mark.parametrize("name", ["exp_decay", "rps"])
def test_the_expectation_of_the_estimate_is_the_gradient_of_the_expectation(seed: int, name: str) -> None:
    """Of all groups of two reasonings; exactly, with no factor (n - 1)/n on one of its halves."""
    model = smallest_model(seed)
    expected(model, name).backward()
    true = flat_gradient(model)
    p, gradients = pairs(model, name)
    assert float(true.norm()) > 1e-3
    torch.testing.assert_close(p @ gradients, true, atol=1e-6, rtol=1e-4)
    # both halves matter: neither reasoning nor verdict alone gives it
    halves = [group_gradient(model, [z, z], name=name) for z in all_reasonings()]
    with torch.no_grad():
        alone = torch.stack([log_prob(model, PROMPT, z.tokens).exp() for z in all_reasonings()])
    direct = alone.double() @ torch.stack(halves)
    assert float((true - direct).norm() / true.norm()) > 0.05


def plain_answers(model) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of all that GRPO can sample, (A,): probabilities, rewards, and gradients of log p (A, weights)."""
    pay, found = objective("exp_decay").rewards[TRUTH].tolist(), []
    table = dict(zip(VERDICTS, pay, strict=True))
    for z in all_reasonings():
        for answer in [()] if z.verdicts is None else all_answers():
            reward = INVALID if z.verdicts is None else table.get(answer, INVALID)
            each = log_prob(model, PROMPT, z.tokens + answer)
            each.backward()
            found.append((each.detach().exp(), torch.tensor(reward).double(), flat_gradient(model)))
    p, rewards, gradients = (torch.stack(column) for column in zip(*found, strict=True))
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    return p.double(), rewards, gradients


def test_its_variance_is_not_above_that_of_sampled_verdicts(seed: int) -> None:
    """Two samples a group, the other as baseline, all groups enumerated for both: one expectation, less variance."""
    model = smallest_model(seed)
    p, gradients = pairs(model, "exp_decay")
    mean = p @ gradients
    ours = float(p @ (gradients - mean).pow(2).sum(1))
    q, rewards, scores = plain_answers(model)
    # (R_a - R_b)(s_a - s_b) / 2
    centred = ((q * rewards) @ scores) - (q @ rewards) * (q @ scores)
    torch.testing.assert_close(centred, mean, atol=1e-6, rtol=1e-4)
    squares = scores.pow(2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * scores @ scores.T
    gaps = (rewards[:, None] - rewards[None]).pow(2)
    plain = float(q @ (gaps * distances / 4) @ q - mean.pow(2).sum())
    assert 0 < ours < plain


# -- the parts


def test_all_in_one_pass_is_each_text_by_itself() -> None:
    model, every = smallest_model(3), all_reasonings()
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(every))]
    asked = Asked(tuple(prompts), tuple(every))
    found = weighed(model, asked)
    tokens, verdicts = [], []
    for prompt, z in zip(prompts, every, strict=True):
        for i in range(len(z.tokens)):
            tokens.append(log_prob(model, prompt + z.tokens[:i], z.tokens[i : i + 1]))
        if z.verdicts:
            verdicts.append(torch.stack([log_prob(model, prompt + z.tokens, v) for v in VERDICTS]))
    torch.testing.assert_close(found.tokens.double(), torch.stack(tokens).double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.verdicts, torch.stack(verdicts).double(), atol=1e-5, rtol=1e-5)
    assert found.entropy.shape == found.tokens.shape
    assert (found.entropy >= 0).all()


def random_group(seed: int):
    """Two prompts of three samples, the second and the fifth cut off, away from old and reference weights."""
    generator = torch.Generator().manual_seed(seed)
    reasonings = [
        Reasoning((1,) * length, None if i in (1, 4) else VERDICTS)
        for i, length in enumerate((3, 5, 1, 4, 6, 2))
    ]
    asked = same(PROMPT, reasonings)
    count = sum(len(z.tokens) for z in reasonings)

    def drawn() -> Weighed:
        tokens = -torch.rand(count, generator=generator)
        verdicts = (torch.rand(4, 4, generator=generator).double() + 0.05).log_softmax(1)[:, :3]
        return Weighed(tokens, torch.rand(count, generator=generator), verdicts)

    return asked, drawn(), drawn(), -torch.rand(count, generator=generator)


@pytest.mark.parametrize("by_std", [False, True])
def test_the_loss_is_the_documented_one(by_std: bool) -> None:
    asked, found, reference, old = random_group(0)
    truths = torch.tensor([1, 1, 1, 2, 2, 2])
    found.tokens.requires_grad_()
    found.verdicts.requires_grad_()
    pay = objective("exp_decay", 0.3)
    loss, figures = ReasonedLoss(pay, 3, 0.2, by_std)(asked, found, truths, reference, old)
    loss.backward()
    tokens, verdicts = (x.detach().double().requires_grad_() for x in (found.tokens, found.verdicts))
    values, within, kls, at, row = [], [], [], 0, 0
    for z, t in zip(asked.reasonings, truths.tolist(), strict=True):
        if z.verdicts is None:
            values.append(torch.tensor(INVALID).double())
            within.append(0.0)
            kls.append(0.0)
            continue
        p, q, rewards = verdicts[row].exp(), reference.verdicts[row].exp(), pay.rewards[t]
        row += 1
        o = 1 - p.sum()
        values.append(p @ rewards + o * INVALID)
        within.append(float((p @ rewards**2 + o * INVALID**2 - values[-1] ** 2).detach()))
        kls.append((p * (p / q).log()).sum() + o * (o / (1 - q.sum())).log())
    total, clipped = torch.zeros((), dtype=torch.float64), []
    for i, z in enumerate(asked.reasonings):
        group = range(3 * (i // 3), 3 * (i // 3) + 3)
        own = torch.stack([values[j].detach() for j in group])
        deviation = (own.var() + sum(within[j] for j in group) / 3).sqrt() + 1e-4 if by_std else 1.0
        advantage = (values[i].detach() - sum(values[j].detach() for j in group if j != i) / 2) / deviation
        shares = []
        for _ in z.tokens:
            ratio = (tokens[at] - old[at].double()).exp()
            held = ratio.clamp(0.8, 1.2)
            shares.append(float(held * advantage < ratio * advantage))
            total = total - torch.minimum(ratio * advantage, held * advantage)
            d = reference.tokens[at].double() - tokens[at]
            total = total + 0.3 * (d.exp() - d - 1)
            at += 1
        clipped.append(sum(shares) / len(shares))
        # the division is of what it teaches: the loss that is logged holds the reward itself
        value = values[i].detach()
        total = total - value - (values[i] - value) / deviation + 0.3 * kls[i]
    (total / 6).backward()
    assert 0 < sum(clipped) < 6, "some ratios are clipped"
    torch.testing.assert_close(loss, total.detach() / 6, check_dtype=False)
    torch.testing.assert_close(found.tokens.grad.double(), tokens.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.verdicts.grad, verdicts.grad)
    assert float(figures["clip_ratio/region_mean"]) == pytest.approx(sum(clipped) / 6)
    assert float(figures["reward"]) == pytest.approx(sum(float(v.detach()) for v in values) / 6)
    assert float(figures["completions/mean_length"]) == 21 / 6
    assert float(figures["completions/clipped_ratio"]) == pytest.approx(2 / 6)


def test_a_group_without_any_verdict_teaches_nothing_and_is_no_nan() -> None:
    model = smallest_model(0)
    open_ones = [z for z in all_reasonings() if z.verdicts is None][:3]
    for by_std in (False, True):
        assert float(group_gradient(model, open_ones, by_std=by_std).norm()) == 0


def test_division_by_the_standard_deviation_weighs_a_prompt_as_a_whole() -> None:
    """And where all reasonings come to the same, what the verdicts teach is not blown up."""
    model, (z, other, *_) = smallest_model(0), [z for z in all_reasonings() if z.verdicts]
    for group in ([z, other], [z, z]):
        plain, divided = (group_gradient(model, group, by_std=by_std) for by_std in (False, True))
        scale = float(divided.norm() / plain.norm())
        torch.testing.assert_close(divided, plain * scale, atol=1e-7, rtol=1e-4)
        assert 0.5 < scale < 50
