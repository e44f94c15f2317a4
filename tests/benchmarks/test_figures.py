"""Each publisher's aggregation, by hand or against an independent formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks import Judged, Outcome, get_benchmark
from rm_gallery.core.evaluate.benchmarks.aggregate import figure
from rm_gallery.core.evaluate.benchmarks.ask import scored
from rm_gallery.gallery.benchmarks import rewardbench, rm_bench, rmb
from tests.benchmarks import publishers
from tests.benchmarks.publishers import ALWAYS_FIRST, array, comparer, lines, load, said, scorer

NO = Outcome(None, None, None)
score = st.integers(-3, 3).map(float)


def figures_of(name, items, judged) -> dict[str, float]:
    shares = get_benchmark(name).aggregate(items, judged)
    return {each: figure(shares, each) for each in (*shares.columns, *shares.averages)}


# -- RM-Bench


def test_rm_bench_by_hand(tmp_path):
    path = array(tmp_path / "chat_filtered.json", [publishers.rm_bench_row(1, "chat")])
    items = get_benchmark("rm_bench").load(path)
    # chosen in three styles, rejected in three; 2 > 2 is not right
    found = figures_of("rm_bench", items, [scored(items[0], [1, 2, 3, 0, 2, 5])])
    matrix = [[found[f"style_{i}_{j}"] for j in range(3)] for i in range(3)]
    assert matrix == [[1, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert [found[f"chat_partial_{level}"] for level in rm_bench.LEVELS] == pytest.approx([1, 1 / 3, 0])
    assert found["overall_partial"] == pytest.approx(4 / 9)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(rm_bench.SIZES)), st.lists(score, min_size=6, max_size=6)), min_size=1
    )
)
def test_rm_bench_as_the_publisher_computes_it(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rm_bench")
    path = array(folder / "x.json", [publishers.rm_bench_row(i, d) for i, (d, _) in enumerate(rows)])
    items = get_benchmark("rm_bench").load(path)
    found = figures_of("rm_bench", items, [scored(i, v) for i, (_, v) in zip(items, rows, strict=True)])
    by_domain = {}
    for domain in {domain.split("-")[0] for domain, _ in rows}:
        cells = np.zeros((3, 3))
        own = [np.array(values) for name, values in rows if name.split("-")[0] == domain]
        for values in own:
            cells += values[:3, None] > values[None, 3:]
        cells /= len(own)
        by_domain[domain] = [np.tril(cells, -1).sum() / 3, np.diag(cells).mean(), np.triu(cells, 1).sum() / 3]
    for domain, levels in by_domain.items():
        assert found[f"{domain}_partial"] == pytest.approx(np.mean(levels), abs=1e-12)
    easy, normal, hard = np.mean(list(by_domain.values()), axis=0)
    assert found["easy_partial"] == pytest.approx(easy, abs=1e-12)
    assert found["normal_partial"] == pytest.approx(normal, abs=1e-12)
    assert found["hard_partial"] == pytest.approx(hard, abs=1e-12)
    assert found["overall_partial"] == pytest.approx(np.mean([easy, normal, hard]), abs=1e-12)


def test_rm_bench_whole_has_the_published_names(tmp_path):
    rows = [publishers.rm_bench_row(i, d) for d, size in rm_bench.SIZES.items() for i in range(size)]
    items = get_benchmark("rm_bench").load(array(tmp_path / "total_dataset.json", rows))
    shares = get_benchmark("rm_bench").aggregate(items, scorer(items))
    assert (shares.headline, shares.notes, len(items)) == ("overall", (), 1327)
    assert {*rm_bench.DOMAINS, *rm_bench.LEVELS, "overall"} == set(shares.averages)
    part = get_benchmark("rm_bench").aggregate(items[:700], scorer(items[:700]))
    assert part.headline == "overall_partial"
    assert {"chat", "math"} <= set(part.averages)
    assert "42 of 228 code" in part.notes[0]


def test_the_domain_is_in_the_row_or_in_the_name_of_the_file(tmp_path):
    row = {k: v for k, v in publishers.rm_bench_row(1, "chat").items() if k != "domain"}
    with pytest.raises(DataError, match=r"some\.json:1: the domain.*'some'"):
        get_benchmark("rm_bench").load(array(tmp_path / "some.json", [row]))
    [item] = get_benchmark("rm_bench").load(array(tmp_path / "safety-refuse_filtered.json", [row]))
    assert item.tags["domain"] == "safety-refuse"


# -- RewardBench


def rewardbench_items(tmp_path, whole=True, extra=()):
    rows = [
        publishers.rewardbench_row(s, i)
        for s, n in rewardbench.SIZES.items()
        for i in range(n if whole else 1)
    ]
    rows += [publishers.rewardbench_row(name) for name in extra]
    return get_benchmark("rewardbench").load(lines(tmp_path / "filtered.jsonl", rows))


def wrong_on(items, subset):
    return [scored(item, [0, 1] if item.tags["subset"] == subset else [1, 0]) for item in items]


def test_rewardbench_sections_have_the_publishers_weights(tmp_path):
    items = rewardbench_items(tmp_path)
    assert len(items) == 2985
    # math counts 984 of 1968 though it has 447 prompts
    assert figures_of("rewardbench", items, wrong_on(items, "math-prm"))["reasoning"] == pytest.approx(0.5)
    # XSTest's two weights as published, though the numbers of prompts are the other way round
    safety = figures_of("rewardbench", items, wrong_on(items, "xstest-should-refuse"))["safety"]
    assert safety == pytest.approx(1 - 250 / 740)
    found = figures_of("rewardbench", items, wrong_on(items, "mt-bench-hard"))
    assert found["chat_hard"] == pytest.approx(1 - 37 / 456)
    assert found["overall"] == pytest.approx(1 - 37 / 456 / 4)


def test_rewardbench_prior_sets_count_half_a_section(tmp_path):
    items = rewardbench_items(tmp_path, extra=rewardbench.PRIOR_SETS)
    found = figures_of("rewardbench", items, wrong_on(items, "shp"))
    assert found["prior_sets"] == pytest.approx(3 / 4)
    assert found["overall"] == pytest.approx((4 + 0.5 * 3 / 4) / 4.5)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (said("A", "A"), 1),
        (ALWAYS_FIRST, 0.5),  # right in one of the two orders that the publisher draws from
        (said("tie", "tie"), 0.5),  # a verdict for neither is half right there
        (Outcome("A", "tie", "A"), 0.75),
        (NO, 0),  # the publisher gives half for it; here it earns nothing, and a note says so
    ],
)
def test_rewardbench_what_a_verdict_earns(tmp_path, outcome, expected):
    items = rewardbench_items(tmp_path, whole=False)
    shares = get_benchmark("rewardbench").aggregate(items, comparer(items, outcome))
    assert figure(shares, "overall_partial") == pytest.approx(expected)
    note = [each for each in shares.notes if "earns nothing" in each]
    assert (note != []) == (outcome == NO)
    assert not note or "`overall_partial` 0.5000" in note[0]


def test_rewardbench_equal_scores_are_not_right(tmp_path):
    items = rewardbench_items(tmp_path, whole=False)
    assert figures_of("rewardbench", items, [scored(i, [1, 1]) for i in items])["overall_partial"] == 0


def test_rewardbench_a_subset_of_no_section_is_an_error(tmp_path):
    path = lines(tmp_path / "x.jsonl", [publishers.rewardbench_row("alpacaeval")])
    with pytest.raises(DataError, match=r"x\.jsonl:1: subset is of no section.*'alpacaeval'"):
        get_benchmark("rewardbench").load(path)


# -- RewardBench 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 2, 1, 0], 1),
        ([3, 3, 1, 0], 1 / 2),
        ([3, 3, 3, 3], 1 / 4),
        ([2, 3, 1, 0], 0),
        ([3, None, 1, 0], 0),  # nobody knows whether it is the best
    ],
)
def test_rewardbench2_best_of_four(tmp_path, values, expected):
    path = lines(tmp_path / "x.jsonl", [publishers.rewardbench2_row("Focus", "1")])
    items = get_benchmark("rewardbench2").load(path)
    shares = get_benchmark("rewardbench2").aggregate(items, [scored(items[0], values)])
    assert figure(shares, "focus_partial") == pytest.approx(expected)
    if None in values:  # the publisher takes a missing rating for the lowest
        assert "makes `overall_partial` 1.0000" in shares.notes[-1]


def test_rewardbench2_a_judge_that_compares_must_win_all_three(tmp_path):
    items = load("rewardbench2", tmp_path)
    one_lost = [said("A", "A"), said("A", "A"), said("B", "B")]
    judged = [
        Judged(tuple(one_lost if item.tags["subset"] == "Math" else [said("A", "A")] * len(item.comparisons)))
        for item in items
    ]
    shares = get_benchmark("rewardbench2").aggregate(items, judged)
    assert shares.headline == "overall_without_ties_partial"
    assert figure(shares, "math_partial") == 0
    assert figure(shares, shares.headline) == pytest.approx(4 / 5)
    assert math.isnan(figure(shares, "ties_partial"))
    assert math.isnan(figure(shares, "overall_partial"))
    assert "Ties are scored by numbers only" in shares.notes[-1]


def published_ties(ref: dict[int, tuple], tied: dict[int, tuple]) -> float:
    """The published formula from (right scores, wrong scores) of each question, in numpy."""

    def gap(row):
        return min(row[0]) - max(row[1])

    both = sorted(ref.keys() & tied.keys())
    spread = np.array([max(tied[q][0]) - min(tied[q][0]) for q in both])
    gaps = np.array([gap(tied[q]) for q in both])
    smaller = np.minimum(gaps, [gap(ref[q]) for q in both])
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.nan_to_num(np.tanh(smaller / spread - 1), nan=0.0)
    accuracy = [np.mean([gap(row) > 0 for row in rows.values()]) for rows in (tied, ref)]
    return (
        0.3 * accuracy[0]
        + 0.3 * accuracy[1]
        + 0.2 * np.mean(gaps > spread)
        + 0.2 * np.mean(smaller > spread)
        + 0.01 * np.mean(margin)
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(score, min_size=13, max_size=13), min_size=1, max_size=5))
def test_ties_as_the_publisher_computes_them(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("ties")
    rows = [publishers.rewardbench2_row("Ties", f"ref:{i}", 1, 4) for i in range(len(numbers))]
    rows += [publishers.rewardbench2_row("Ties", f"tied:{i}", 3, 5) for i in range(len(numbers))]
    items = get_benchmark("rewardbench2").load(lines(folder / "x.jsonl", rows))
    values = [row[:5] for row in numbers] + [row[5:] for row in numbers]
    found = figures_of("rewardbench2", items, [scored(i, v) for i, v in zip(items, values, strict=True)])
    ref = {i: (row[:1], row[1:5]) for i, row in enumerate(numbers)}
    tied = {i: (row[5:8], row[8:]) for i, row in enumerate(numbers)}
    assert found["ties_partial"] == pytest.approx(published_ties(ref, tied), abs=1e-12)
    assert found["overall_partial"] == pytest.approx(found["ties_partial"], abs=1e-12)


def test_ties_by_hand(tmp_path):
    rows = [
        publishers.rewardbench2_row("Ties", "ref:1", 1, 2),
        publishers.rewardbench2_row("Ties", "tied:1", 2, 2),
    ]
    items = get_benchmark("rewardbench2").load(lines(tmp_path / "x.jsonl", rows))
    # tied: the right ones 5 and 4 (spread 1), the best wrong one 2 (gap 2); ref: gap 0.5, smaller than the spread
    found = figures_of("rewardbench2", items, [scored(items[0], [2.5, 2, 1]), scored(items[1], [5, 4, 2, 0])])
    assert found["ties_partial"] == pytest.approx(0.3 + 0.3 + 0.2 + 0 + 0.01 * math.tanh(0.5 / 1 - 1))
    missing = [scored(items[0], [2.5, None, 1]), scored(items[1], [5, 4, 2, 0])]
    assert figures_of("rewardbench2", items, missing)["ties_partial"] == pytest.approx(0.3 + 0.2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (publishers.rewardbench2_row("Ties", "1"), "neither ref:NUMBER nor tied:NUMBER"),
        (publishers.rewardbench2_row("Ties", "ref:1", 2), "a row ref: has one"),
        (publishers.rewardbench2_row("Math", "1", 2), "only Ties has more than one"),
        (publishers.rewardbench2_row("Chat", "1"), "subset is none of"),
    ],
)
def test_rewardbench2_a_row_not_as_published_is_an_error(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        get_benchmark("rewardbench2").load(lines(tmp_path / "x.jsonl", [row]))


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


@settings(max_examples=100, deadline=None)
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
    table = precision_recall_fscore_support(truth, predicted, labels=LABELS, zero_division=math.nan)
    for what, values in zip(names, table[:3], strict=True):
        ours = [found[f"{what}_{side}_partial"] for side in ("first", "second", "tie")]
        if (
            what == "f1"
        ):  # scikit-learn calls F1 undefined only where ours is: the label is neither given nor said
            occurs = [label in (*truth, *predicted) for label in LABELS]
            values = [
                value if there else math.nan
                for value, there in zip(np.nan_to_num(values), occurs, strict=True)
            ]
        assert ours == pytest.approx(list(values), abs=1e-12, nan_ok=True)
        assert found[f"macro_{what}_partial"] == pytest.approx(np.mean(values), abs=1e-12, nan_ok=True)


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
