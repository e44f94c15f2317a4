"""The two orders of a benchmark's comparisons: properties of judges, and the definitions counted by hand."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.data.samples import Message
from rm_gallery.core.evaluate.benchmarks import Comparison, Item, Judged, Outcome, Shares
from rm_gallery.core.evaluate.orders import ORDER_COLUMNS, order_columns
from rm_gallery.core.evaluate.shares import share_estimates

MIRROR = {"A": "B", "B": "A", "tie": "tie", None: None}
truth = st.sampled_from(["A", "B", "tie"])
verdict = st.sampled_from(["A", "B", "tie", None])
outcome = st.builds(Outcome, verdict, verdict, verdict)


def items_of(truths):
    return [
        Item(
            f"item-{i}",
            f"prompt-{i}",
            (Message("user", f"question {i}"),),
            ("one", "two"),
            tuple(Comparison(0, 1, t) for t in each),
        )
        for i, each in enumerate(truths)
    ]


def figures(items, judged):
    columns, denominators = order_columns(items, judged)
    units = tuple(item.unique_id for item in items)
    shares = Shares(units, units, columns, {}, "flip_rate", denominators=denominators)
    return {name: found.value for name, found in share_estimates(shares, resamples=2).items()}


several = st.lists(st.lists(st.tuples(truth, outcome), max_size=4), min_size=1, max_size=8)


@settings(max_examples=200)
@given(several)
def test_every_figure_is_what_its_definition_counts(rows):
    items = items_of([[t for t, _ in each] for each in rows])
    found = figures(items, [Judged(tuple(o for _, o in each)) for each in rows])
    pairs = [(t, o.forward, o.swapped) for each in rows for t, o in each]
    shown = [x for _, f, s in pairs for x in (f, MIRROR[s])]  # A: the response shown first

    def share(values):
        return np.mean(values) if len(values) else math.nan

    defined = {
        "flip_rate": share([f != s for _, f, s in pairs if f and s]),
        "first_position_rate": share([x == "A" for x in shown if x in ("A", "B")]),
        "two_order_accuracy": share([f == t and s == t for t, f, s in pairs]),
        "inconsistent_rate": share([f != s for _, f, s in pairs]),
        "reversal_rate": share([{f, s} == {"A", "B"} for _, f, s in pairs]),
        "tie_rate": share([x == "tie" for x in shown]),
        "invalid_rate": share([x is None for x in shown]),
    }
    assert list(found) == list(defined) == list(ORDER_COLUMNS)
    np.testing.assert_allclose(list(found.values()), list(defined.values()), rtol=0, atol=1e-12)


@settings(max_examples=50)
@given(st.lists(st.tuples(truth, verdict), min_size=1, max_size=20))
def test_a_judge_blind_to_the_order_never_flips_whatever_the_data(rows):
    found = figures(items_of([[t] for t, _ in rows]), [Judged((Outcome(v, v, v),)) for _, v in rows])
    legal = any(v is not None for _, v in rows)
    assert found["flip_rate"] == 0 if legal else math.isnan(found["flip_rate"])
    assert found["reversal_rate"] == 0
    assert found["two_order_accuracy"] == np.mean([t == v for t, v in rows])


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["A", "B"]), min_size=1, max_size=20))
def test_a_judge_that_always_says_a_is_never_right_in_both_orders(truths):
    always = Judged((Outcome("A", "B", "tie"),))
    found = figures(items_of([[t] for t in truths]), [always] * len(truths))
    assert found["first_position_rate"] == found["flip_rate"] == found["reversal_rate"] == 1
    assert found["two_order_accuracy"] == 0


def test_an_item_counts_by_its_comparisons():
    # nine comparisons and one: the rate is 9 of 10, not the mean of 1 and 0
    items = items_of([["A"] * 9, ["A"]])
    judged = [Judged((Outcome("A", "A", "A"),) * 9), Judged((Outcome("B", "B", "B"),))]
    assert figures(items, judged)["two_order_accuracy"] == 0.9


def test_a_model_that_scores_is_shown_no_order():
    judged = Judged((Outcome("tie", "tie", "tie"), Outcome(None, None, None)), values=(1.0, None))
    found = figures(items_of([["A", "B"]]), [judged])
    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined == set(ORDER_COLUMNS) - {"tie_rate", "invalid_rate"}
    assert (found["tie_rate"], found["invalid_rate"]) == (0.5, 0.5)


def test_an_order_that_was_not_asked_is_no_invalid_verdict():
    outcomes = (Outcome("A", None, "A"), Outcome(None, None, None))
    found = figures(items_of([["A", "B"]]), [Judged(outcomes, one_order=True)])
    assert (found["first_position_rate"], found["tie_rate"], found["invalid_rate"]) == (1, 0, 0.5)
    assert math.isnan(found["flip_rate"])
    assert math.isnan(found["two_order_accuracy"])
