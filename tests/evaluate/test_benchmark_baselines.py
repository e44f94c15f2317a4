"""What costs nothing on a benchmark, and the definitions that `rmg data describe` shares with evaluation."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core import trivial
from rm_gallery.core.data.samples import Message
from rm_gallery.core.evaluate.benchmarks.base import Comparison, Item, correct
from rm_gallery.core.evaluate.benchmarks.baselines import BENCHMARK_BASELINES, benchmark_baselines
from rm_gallery.core.evaluate.orders import order_columns
from rm_gallery.core.rewards import exp_decay

responses = st.lists(st.text(max_size=4), min_size=2, max_size=4)


def item_of(i, texts, prompt="question"):
    pairs = tuple(Comparison(a, b, "A") for a in range(len(texts)) for b in range(len(texts)) if a != b)
    return Item(f"item-{i}", f"p-{i}", (Message("user", prompt),), tuple(texts), pairs)


items_of = st.lists(responses, min_size=1, max_size=8).map(
    lambda found: [item_of(i, texts) for i, texts in enumerate(found)]
)


def rates(items, judged):
    columns, denominators = order_columns(items, judged)
    return {name: sum(columns[name]) / sum(denominators[name]) for name in columns if sum(denominators[name])}


@settings(max_examples=50)
@given(items_of)
def test_none_of_them_looks_at_the_prompt_or_the_truth(items):
    changed = [
        dataclasses.replace(
            item,
            input=(Message("user", "another question"),),
            comparisons=tuple(dataclasses.replace(c, truth="B") for c in item.comparisons),
        )
        for item in items
    ]
    found = benchmark_baselines(items)
    assert found == benchmark_baselines(items) == benchmark_baselines(changed)
    assert list(found) == list(BENCHMARK_BASELINES)


@settings(max_examples=50)
@given(items_of)
def test_the_first_is_never_right_in_both_orders_and_the_longer_is_longer(items):
    found = benchmark_baselines(items)
    first = rates(items, found["first"][1])
    assert (first["first_position_rate"], first["flip_rate"], first["two_order_accuracy"]) == (1, 1, 0)
    longer = found["longer"][1]
    for item, judged in zip(items, longer, strict=True):
        lengths = [len(text) for text in item.responses]
        assert correct(item, judged) == [
            float(lengths[c.first] > lengths[c.second]) for c in item.comparisons
        ]
    assert all(judged.values is None for judged in found["first"][1])


def test_the_coin_is_fair_and_each_order_has_its_own():
    items = [item_of(i, ["one", "two"]) for i in range(2000)]
    found = rates(items, benchmark_baselines(items)["random"][1])
    # four comparisons in ten thousand deviate by more: 8,000 verdicts, 4,000 pairs of them
    assert found["first_position_rate"] == pytest.approx(0.5, abs=0.02)
    assert found["flip_rate"] == pytest.approx(0.5, abs=0.03)
    assert found["two_order_accuracy"] == pytest.approx(0.25, abs=0.025)
    names = [f"name {i}" for i in range(4000)]
    assert [trivial.coin(name) for name in names] == [trivial.coin(name) for name in names]
    assert sum(trivial.coin(name) == "A" for name in names) == pytest.approx(2000, abs=130)


@given(st.dictionaries(st.integers(0, 4), st.integers(1, 50), min_size=1))
def test_the_best_constant_is_the_best_of_all(counts):
    def mean(verdict):
        return sum(n * exp_decay(verdict, label) for label, n in counts.items()) / sum(counts.values())

    best, reward = trivial.best_constant(counts, range(5), exp_decay)
    assert reward == pytest.approx(max(map(mean, range(5))), abs=1e-12)
    assert mean(best) == pytest.approx(reward, abs=1e-12)
    assert counts[trivial.majority(counts, range(5))] == max(counts.values())


def test_draws_go_to_the_first_of_the_scale():
    assert trivial.majority({"B": 2, "A": 2, "tie": 1}, ("A", "B", "tie")) == "A"
    assert trivial.best_constant({0: 1, 4: 1}, range(5), lambda v, t: 1.0)[0] == 0
    assert (trivial.longer("aa", "bb"), trivial.longer("aaa", "bb"), trivial.longer("a", "bb")) == (
        "tie",
        "A",
        "B",
    )
    with pytest.raises(ValueError, match="no best constant"):
        trivial.best_constant({}, range(5), exp_decay)
