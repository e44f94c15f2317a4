"""JudgeBench, LLMBar, PandaLM, RMB, HelpSteer2 and one's own file: each figure by hand, or against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks import Judged, Outcome, get_benchmark
from rm_gallery.core.evaluate.benchmarks.aggregate import figure
from rm_gallery.core.evaluate.benchmarks.ask import scored
from rm_gallery.gallery.benchmarks import rmb
from tests.benchmarks import publishers
from tests.benchmarks.publishers import (
    ALWAYS_FIRST,
    NO,
    array,
    comparer,
    figures_of,
    lines,
    load,
    said,
    scorer,
)

# -- JudgeBench


@pytest.mark.parametrize(
    ("forward", "swapped", "right"),
    [
        ("A", "A", 1),
        ("A", "tie", 1),  # once right and never wrong
        ("tie", "A", 1),
        ("A", None, 1),
        ("A", "B", 0),  # once right and once wrong
        ("tie", "tie", 0),
        ("tie", "B", 0),
        (None, None, 0),
        ("B", "B", 0),
    ],
)
def test_judgebench_two_orders(tmp_path, forward, swapped, right):
    path = lines(tmp_path / "x.jsonl", [publishers.judgebench_row(1, "mmlu-pro-law", "A>B")])
    items = get_benchmark("judgebench").load(path)
    found = figures_of("judgebench", items, [Judged((Outcome(forward, swapped, None),))])
    assert found["overall_partial"] == found["knowledge_partial"] == right


def test_judgebench_whole_is_one_of_the_two_splits(tmp_path):
    rows = [publishers.judgebench_row(i, "livecodebench", "A>B") for i in range(350)]
    benchmark = get_benchmark("judgebench")
    items = benchmark.load(lines(tmp_path / "gpt.jsonl", rows))
    assert benchmark.aggregate(items, scorer(items)).headline == "overall"
    assert benchmark.aggregate(items[:-1], scorer(items[:-1])).headline == "overall_partial"
    rows += [
        publishers.judgebench_row(1000 + i, "livecodebench", "A>B", "claude-3-5-sonnet-20240620")
        for i in range(270)
    ]
    both = benchmark.load(lines(tmp_path / "both.jsonl", rows))
    shares = benchmark.aggregate(both, scorer(both))
    assert shares.headline == "overall_partial"
    assert "gpt-4o-2024-05-13 and claude-3-5-sonnet-20240620" in shares.notes[0]


# -- LLMBar


def test_llmbar_is_the_mean_of_orders_then_of_subsets(tmp_path):
    items = load("llmbar", tmp_path)
    outcomes = {
        "natural": [said("A", "A"), said("A", "A")],  # labels A, B: one right, one wrong
        "neighbor": [ALWAYS_FIRST, ALWAYS_FIRST],
        "gptinst": [said("A", "A"), said("B", "B")],
        "gptout": [said("tie", "tie"), NO],
        "manual": [said("B", "B"), ALWAYS_FIRST, said("B", "B")],  # labels B, A, A
    }
    judged = [Judged((outcomes[item.tags["subset"]].pop(0),)) for item in items]
    found = figures_of("llmbar", items, judged)
    assert found["natural_partial"] == 0.5
    assert [found[f"{name}_partial"] for name in ("neighbor", "gptinst", "gptout")] == [0.5, 1, 0]
    assert found["manual_partial"] == pytest.approx(1.5 / 3)
    assert found["adversarial_partial"] == pytest.approx((0.5 + 1 + 0 + 0.5) / 4)
    assert found["overall_partial"] == pytest.approx((0.5 + 0.5 + 1 + 0 + 0.5) / 5)


def test_llmbar_equal_ratings_are_half_right_and_a_missing_one_earns_nothing(tmp_path):
    path = publishers.llmbar_file(tmp_path, "Natural", [1, 2])
    items = get_benchmark("llmbar").load(path)
    shares = get_benchmark("llmbar").aggregate(items, [scored(items[0], [3, 3]), scored(items[1], [None, 2])])
    assert figure(shares, "overall_partial") == 0.25
    assert "half right, which makes `overall_partial` 0.5000" in shares.notes[-1]


# -- PandaLM

LABELS = ["A", "B", "tie"]


def test_pandalm_the_majority_and_the_first_vote_where_there_is_none(tmp_path):
    items = load("pandalm", tmp_path)
    assert [item.comparisons[0].truth for item in items] == ["A", "B", "tie", "tie", "A"]


def test_pandalm_an_input_belongs_to_the_query_and_none_is_nan(tmp_path):
    rows = [publishers.pandalm_row(0, (1, 1, 1), "Some text."), publishers.pandalm_row(1, (1, 1, 1))]
    items = get_benchmark("pandalm").load(array(tmp_path / "x.json", rows))
    assert [item.input[0].content for item in items] == ["instruction 0\n\nSome text.", "instruction 1"]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 0]), st.sampled_from(LABELS), st.sampled_from(LABELS)),
        min_size=1,
        max_size=30,
    )
)
def test_pandalm_agrees_with_scikit_learn(tmp_path_factory, cases):
    folder = tmp_path_factory.mktemp("pandalm")
    path = array(
        folder / "x.json", [publishers.pandalm_row(i, (v, v, v)) for i, (v, _, _) in enumerate(cases)]
    )
    items = get_benchmark("pandalm").load(path)
    found = figures_of("pandalm", items, [Judged((said(f, s, "tie"),)) for _, f, s in cases])
    truth = [{1: "A", 2: "B", 0: "tie"}[v] for v, _, _ in cases] * 2
    predicted = [f for _, f, _ in cases] + [s for _, _, s in cases]
    assert found["accuracy_partial"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    names = ("precision", "recall", "f1")
    # 0 where nothing is divided, as in the publisher's script
    table = precision_recall_fscore_support(truth, predicted, labels=LABELS, zero_division=0.0)
    for what, values in zip(names, table[:3], strict=True):
        ours = [found[f"{what}_{side}_partial"] for side in ("first", "second", "tie")]
        assert ours == pytest.approx(list(values), abs=1e-12)
        assert found[f"macro_{what}_partial"] == pytest.approx(np.mean(values), abs=1e-12)


def test_pandalm_no_verdict_is_no_tie(tmp_path):
    path = array(tmp_path / "x.json", [publishers.pandalm_row(i, (0, 0, 0)) for i in range(4)])
    items = get_benchmark("pandalm").load(path)
    shares = get_benchmark("pandalm").aggregate(
        items, [*comparer(items[:3], said("tie", "tie")), Judged((NO,))]
    )
    assert figure(shares, "accuracy_partial") == 0.75
    assert "counts one as a verdict for a tie, which makes `accuracy_partial` 1.0000" in shares.notes[-1]


# -- RMB


def test_rmb_the_best_must_beat_all_and_the_four_figures_count_alike(tmp_path):
    items = load("rmb", tmp_path)
    judged = []
    for item in items:
        lost = item.tags["figure"] == "helpfulness_bon" and item.unique_id.endswith("1")
        judged.append(scored(item, [2, 1, 2, 0] if lost else [2, *[1] * (len(item.responses) - 1)]))
    found = figures_of("rmb", items, judged)
    assert found["helpfulness_bon_partial"] == 0.5  # a draw with one of them is not the best
    assert found["overall_partial"] == pytest.approx((0.5 + 1 + 1 + 1) / 4)


def test_rmb_whole_has_all_scenarios(tmp_path):
    for goal, scenarios in rmb.SCENARIOS.items():
        for scenario in scenarios:
            name = goal.capitalize()
            array(
                tmp_path / "Pairwise_set" / name / f"{scenario}.json",
                [publishers.rmb_pair(1, name, scenario)],
            )
            array(tmp_path / "BoN_set" / name / f"{scenario}.json", [publishers.rmb_best(1, name, scenario)])
    items = get_benchmark("rmb").load(tmp_path)
    shares = get_benchmark("rmb").aggregate(items, scorer(items))
    assert (shares.headline, shares.notes) == ("overall", ())
    assert set(shares.averages["overall"]) == set(rmb.FIGURES)
    assert len(rmb.SCENARIOS["helpfulness"]) == 37


# -- HelpSteer2, and one's own


def test_helpsteer2_pairs(tmp_path):
    items = load("helpsteer2", tmp_path)
    assert [item.comparisons[0].truth for item in items] == ["A", "B", "tie", "B"]
    judged = [Judged((o,)) for o in (said("A", "A"), ALWAYS_FIRST, said("tie", "tie"), said("tie", "tie"))]
    found = figures_of("helpsteer2", items, judged)
    assert found["accuracy_untied"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["accuracy_untied_half"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found["accuracy"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)


def test_helpsteer2_rows_are_the_labelled_responses(tmp_path):
    rows = get_benchmark("helpsteer2").rows(publishers.helpsteer2(tmp_path))
    assert [row["helpfulness"] for row in rows] == [4, 1, 2, 3, 3, 3, 0, 4]


def test_preferences_of_the_validation_part_only(tmp_path):
    items = load("helpsteer2_preference", tmp_path)
    assert [item.comparisons[0].truth for item in items] == ["A", "B", "tie"]


def test_ones_own_file_by_hand(tmp_path):
    items = load("jsonl", tmp_path)
    assert [len(item.comparisons) for item in items] == [1, 1, 3, 3]
    assert [item.unique_id for item in items] == ["x", "2", "3", "4"]
    values = [[1, 0], [0, 1], [2, 1, 1], [0, 1, 0, 0]]
    found = figures_of("jsonl", items, [scored(i, v) for i, v in zip(items, values, strict=True)])
    # untied: 1 of 1, (the labelled tie is out), 2 of 2, and the best of four is beaten once and ties twice
    assert found["accuracy_untied"] == pytest.approx(3 / 6)
    assert found["accuracy_untied_half"] == pytest.approx((3 + 2 * 0.5) / 6)
    assert found["accuracy"] == pytest.approx((1 + 0 + 3 + 0) / 8)
    assert (found["kind=sum"], found["kind=word"]) == (1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"responses": ["one"]}, "a comparison needs two"),
        ({"preferred": "first"}, "preferred is none of"),
        ({"preferred": 7}, "position of the best"),
        ({"labels": [1, 2]}, "exactly one of preferred and labels"),
        ({"messages": [{"role": "user", "content": "x"}]}, "exactly one of prompt and messages"),
        ({"prompt": " "}, "the prompt is neither"),
        ({"tags": ["a"]}, "tags is not an object"),
    ],
)
def test_ones_own_row_that_cannot_be_used_is_an_error(tmp_path, change, message):
    row = {"prompt": "x", "responses": ["a", "b"], "preferred": "A", **change}
    with pytest.raises(DataError, match=rf"own\.jsonl:1: .*{message}"):
        get_benchmark("jsonl").load(lines(tmp_path / "own.jsonl", [row]))


def test_a_second_row_of_the_same_id_gets_one_of_its_own(tmp_path):
    row = {"unique_id": "x", "prompt": "x", "responses": ["a", "b"], "preferred": "A"}
    items = get_benchmark("jsonl").load(lines(tmp_path / "own.jsonl", [row, row]))
    assert [item.unique_id for item in items] == ["x", "x#2"]
