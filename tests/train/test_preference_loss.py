"""The likelihoods of a judgment: they are the published ones, and behave as their models say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.train.local.preference_loss import Ties

KINDS = ("drop", "rao_kupper", "davidson")
gaps = st.floats(-30, 30)


def ties(kind: str, parameter: float = 2.0) -> Ties:
    found = Ties(kind, None if kind == "drop" else parameter)
    found.raw = found.raw.double()
    return found


def nll(model: Ties, gap: float, *, tied: bool = False, margin: float = 0.0) -> float:
    arguments = torch.tensor([gap], dtype=torch.float64), torch.tensor([tied]), torch.tensor([margin])
    return float(model.loss(*arguments).detach())


def published(kind: str, parameter: float, gap: float) -> tuple[float, float]:
    """(P(chosen), P(tie)) as the papers write them, with strengths p = exp(score)."""
    p, q = math.exp(gap), 1.0
    if kind == "drop":  # Bradley & Terry (1952)
        return p / (p + q), 0.0
    if kind == "rao_kupper":  # Rao & Kupper (1967)
        theta = parameter
        return p / (p + theta * q), p * q * (theta**2 - 1) / ((p + theta * q) * (theta * p + q))
    between = parameter * math.sqrt(p * q)  # Davidson (1970)
    return p / (p + q + between), between / (p + q + between)


# -- properties


@given(gap=gaps, parameter=st.floats(1.01, 50), kind=st.sampled_from(KINDS[1:]))
def test_the_three_outcomes_have_probability_one(gap, parameter, kind):
    model = ties(kind, parameter)
    total = sum(math.exp(-nll(model, d, tied=t)) for d, t in ((gap, False), (-gap, False), (gap, True)))
    assert total == pytest.approx(1, abs=1e-6)


@given(gap=gaps, parameter=st.floats(1.01, 50), kind=st.sampled_from(KINDS))
def test_the_likelihood_is_the_published_one(gap, parameter, kind):
    model = ties(kind, parameter)
    chosen, tie = published(kind, parameter, gap)
    assert math.exp(-nll(model, gap)) == pytest.approx(chosen, rel=1e-5)
    if kind != "drop":
        assert math.exp(-nll(model, gap, tied=True)) == pytest.approx(tie, rel=1e-5)


@given(gap=gaps, shift=st.floats(-1000, 1000), kind=st.sampled_from(KINDS), tied=st.booleans())
def test_a_constant_added_to_all_scores_changes_nothing(gap, shift, kind, tied):
    model = ties(kind)
    assert nll(model, (gap + shift) - shift, tied=tied) == pytest.approx(nll(model, gap, tied=tied), abs=1e-9)


@given(gap=gaps, kind=st.sampled_from(KINDS[1:]))
def test_a_tie_does_not_know_which_response_stands_first(gap, kind):
    assert nll(ties(kind), gap, tied=True) == pytest.approx(nll(ties(kind), -gap, tied=True))


@given(gap=gaps, margin=st.floats(0, 5), kind=st.sampled_from(KINDS))
def test_a_margin_is_taken_off_the_gap(gap, margin, kind):
    assert nll(ties(kind), gap, margin=margin) == pytest.approx(nll(ties(kind), gap - margin), rel=1e-5)
    assert nll(ties(kind), gap, margin=margin) >= nll(ties(kind), gap)


@given(gap=gaps, margin=st.floats(0, 3), parameter=st.floats(1.05, 20), tied=st.booleans())
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind, gap, margin, parameter, tied):
    """Of the gap, and of the parameter where there is one."""
    model = ties(kind, parameter)
    tied = tied and kind != "drop"
    d = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
    model.raw.requires_grad_(kind != "drop")
    model.loss(d, torch.tensor([tied]), torch.tensor([margin], dtype=torch.float64)).sum().backward()
    step = 1e-5
    high, low = (nll(model, gap + e, tied=tied, margin=margin) for e in (step, -step))
    assert float(d.grad) == pytest.approx((high - low) / (2 * step), abs=1e-5)
    if kind == "drop":
        return
    gradient, at = float(model.raw.grad), float(model.raw.detach())
    values = []
    for e in (step, -step):
        model.raw = torch.tensor(at + e, dtype=torch.float64)
        values.append(nll(model, gap, tied=tied, margin=margin))
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("gap", [-1e5, -100.0, 0.0, 100.0, 1e5])
def test_far_apart_scores_give_finite_losses_and_gradients(kind, tied, gap):
    model = Ties(kind, None if kind == "drop" else 3.0)
    d = torch.tensor([gap], requires_grad=True)
    loss = model.loss(d, torch.tensor([tied and kind != "drop"]), torch.zeros(1))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(d.grad).all()


@pytest.mark.parametrize(("kind", "none"), [("rao_kupper", 1 + 1e-6), ("davidson", 1e-9)])
def test_without_ties_both_become_bradley_terry(kind, none):
    assert nll(ties(kind, none), 0.7) == pytest.approx(nll(ties("drop"), 0.7), abs=1e-5)


# -- by hand


@pytest.mark.parametrize(
    ("kind", "gap", "tied", "margin", "loss"),
    [
        ("drop", 1.0, False, 0.0, 0.3132616875),  # log(1 + e^-1)
        ("drop", 1.0, False, 3.0, 2.1269280110),  # log(1 + e^2)
        ("rao_kupper", math.log(3), False, 0.0, math.log(5 / 3)),  # 3 / (3 + 2 x 1)
        ("rao_kupper", math.log(3), True, 0.0, math.log(35 / 9)),  # 3 x 3 / (5 x 7)
        ("rao_kupper", math.log(3), False, math.log(3), math.log(3)),  # as equal scores: 1 / (1 + 2)
        ("davidson", math.log(4), False, 0.0, math.log(9 / 4)),  # 4 / (4 + 1 + 2 x 2)
        ("davidson", math.log(4), True, 0.0, math.log(9 / 4)),  # 4 / 9
        ("davidson", math.log(4), False, math.log(4), math.log(4)),  # as equal scores: 1 / (1 + 1 + 2)
    ],
)
def test_values_by_hand(kind, gap, tied, margin, loss):
    """With theta and nu 2."""
    assert nll(ties(kind), gap, tied=tied, margin=margin) == pytest.approx(loss, abs=1e-6)


# -- the learned parameter


@pytest.mark.parametrize("kind", KINDS[1:])
@given(share=st.floats(0.01, 0.95))
def test_it_starts_where_equal_scores_tie_as_often_as_the_data(kind, share):
    assert math.exp(-nll(Ties(kind, None, share), 0.0, tied=True)) == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize(("kind", "true"), [("rao_kupper", 2.5), ("davidson", 1.5)])
def test_it_comes_to_the_parameter_that_the_judgments_were_drawn_with(kind, true):
    generator = torch.Generator().manual_seed(0)
    gap = torch.randn(20_000, generator=generator) * 2
    draw = torch.rand(20_000, generator=generator)
    truth = Ties(kind, true)
    nothing, no = torch.zeros(20_000), torch.zeros(20_000, dtype=torch.bool)
    tied = draw < (-truth.loss(gap, ~no, nothing)).exp()
    first = (draw - (-truth.loss(gap, ~no, nothing)).exp()) < (-truth.loss(gap, no, nothing)).exp()
    gap = torch.where(first, gap, -gap)
    model = Ties(kind, None, float(tied.float().mean()))
    for _ in range(300):
        model.loss(gap, tied, nothing).mean().backward()
        model.step(lambda gradient: gradient)
    assert model.value == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("kind", KINDS[1:])
@settings(max_examples=20)
@given(value=st.floats(1.001, 1000))
def test_the_value_is_set_and_read(kind, value):
    model = Ties(kind, None, 0.5)
    model.value = value
    again = Ties(kind, None, 0.2)
    again.value = model.value
    assert again.value == model.value, "a run that goes on has the same parameter to the last bit"
    assert model.value == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_fixed_parameter_stays(kind):
    model = Ties(kind, 3.0)
    assert not model.raw.requires_grad
    model.step(lambda gradient: gradient)
    assert model.value == pytest.approx(3.0, rel=1e-6)


def test_nothing_to_learn_it_from_is_said():
    with pytest.raises(ConfigError, match="not one training pair is a tie"):
        Ties("davidson", None, 0.0)
