"""What the report compares, marks, lists and draws."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate import score_outputs
from rm_gallery.core.evaluate.benchmarks import benchmark_names, get_benchmark
from rm_gallery.core.evaluate.curve import CURVE
from rm_gallery.core.evaluate.report import Evaluation, ReportInput, read_inputs, render_report
from rm_gallery.core.evaluate.report.answers import read_answers
from rm_gallery.core.evaluate.report.cases import LISTED, disagreements
from rm_gallery.core.evaluate.report.systems import Systems, last_to_first, same_rows
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from tests.benchmarks.publishers import load

from .helpers import distributions, preferences, sample_row
from .reports import on_benchmark, pairs_result, says_a, scores_result, write_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("results"))


# -- comparisons


def test_best_stands_only_where_every_difference_is_shown():
    """Of equal judges none is best; of a good and a bad one the good one, in every figure where it is proven."""

    def marked(*results):
        page = render_report(ReportInput([Evaluation(f"e{i}", result) for i, result in enumerate(results)]))
        return page.count('<span class="best">')

    bad, good = scores_result(0, rows=60), scores_result(1, rows=60, good=1.0)
    assert marked(bad) == marked(bad, bad) == marked(good, bad, good) == 0
    systems = Systems([Evaluation("bad", bad), Evaluation("good", good)])
    assert marked(bad, good) > 0
    assert systems.best("accuracy") == 1
    assert systems.best("mae") == 1, "less is better there"
    assert systems.best("invalid") is None, "both miss the same rows"


def test_the_last_is_compared_with_the_first():
    first, last = scores_result(0, rows=60), scores_result(1, rows=60, good=1.0)
    lines = {
        line["title"]: line
        for line in last_to_first(Systems([Evaluation("a", first), Evaluation("b", last)]))
    }
    assert lines["accuracy"]["reading"] == "better"
    assert lines["accuracy"]["p"].startswith("< 0.001 (")
    assert lines["MAE"]["reading"] == "better"
    assert lines["reward"]["p"] == "", "a reward is not right or wrong"
    assert lines["invalid"]["reading"] == "not shown"


def test_only_the_same_rows_are_compared(folders):
    """Another model on the same rows is; the same name over other rows, or fewer of them, is not."""
    scores = [Evaluation(str(i), result) for i, result in enumerate((scores_result(0), scores_result(1)))]
    fewer = Evaluation("fewer", scores_result(0, rows=39))
    pairs = Evaluation("pairs", pairs_result())
    groups = same_rows([scores[0], fewer, pairs, scores[1]])
    assert [[e.name for e in group] for group in groups] == [["0", "1"], ["fewer"], ["pairs"]]
    [group] = same_rows(read_inputs([folders / name for name in ("scalar", "compares", "rates")]).evaluations)
    assert len(group) == 3


def test_baselines_that_differ_are_told_apart():
    """The same constant for both judges stands there once; one fitted on other rows under its judge's name too."""
    one, other = scores_result(0), scores_result(1)
    names = [column.name for column in Systems([Evaluation("a", one), Evaluation("b", other)]).columns]
    assert names.count("majority") == 1
    changed = tuple(replace(b, rule="always 1") if b.name == "majority" else b for b in one.baselines)
    both = Systems([Evaluation("a", replace(one, baselines=changed)), Evaluation("b", other)])
    names = [column.name for column in both.columns]
    assert {"majority, as for a", "majority, as for b"} <= set(names)


# -- a benchmark's answers


def test_answers_of_a_benchmark_are_read_as_they_were_given(folders):
    pairs = read_answers(folders / "compares" / "predictions.parquet", "pairwise")
    assert len(pairs) == 6 * 9 * 2
    assert set(pairs.predicted) == {"A"}
    assert pairs.truth.count("A") == pairs.truth.count("B"), "each pair in both orders"
    assert len(set(pairs.group)) == 6 * 9
    scored = read_answers(folders / "scalar" / "predictions.parquet", "scalar")
    assert len(scored.comparisons()) == 6 * 9
    chosen, rejected = scored.values_by_label()
    assert sorted(set(chosen)) == [0.5, 1.5, 2.5]
    assert sorted(set(rejected)) == [0.0, 1.0, 2.0]
    assert len(chosen) == 6 * 3 - 1, "the missing one is no number"


def test_another_file_in_the_place_of_the_answers_is_refused(folders, tmp_path):
    shutil.copytree(folders / "scalar", tmp_path / "mixed")
    shutil.copy(folders / "before" / "predictions.parquet", tmp_path / "mixed" / "predictions.parquet")
    with pytest.raises(DataError, match="missing: item, value, better_than"):
        read_inputs([tmp_path / "mixed"])


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_is_reported_and_says_whether_it_was_tried(name, tmp_path):
    """Whatever its items are: several comparisons, ties, no label that a response is worse than."""
    items = load(name, tmp_path / "file")
    on_benchmark(tmp_path, "compares", says_a, PairwiseTask(), name, items)
    on_benchmark(tmp_path, "rates", lambda q: Answer(q.index % 5), PointwiseTask(), name, items)
    page = render_report(read_inputs([tmp_path / "compares", tmp_path / "rates"]))
    assert page.count("Every system on the same items") == 1
    untried = "was not tried on the publisher’s own file" in page.replace("&#39;", "’")
    assert untried == (not get_benchmark(name).verified)


# -- disagreements


def listed(*observed):
    result = scores_result(0, rows=5)
    evaluations = [
        Evaluation(str(i), replace(result, predictions=None), answers) for i, answers in enumerate(observed)
    ]
    return disagreements(evaluations)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=30))
def test_the_list_holds_what_is_wrong_or_missing_worst_first(rows):
    truth, given = [t for t, _ in rows], [g for _, g in rows]
    lists = listed(rated(truth, given))
    wrong = [abs(t - g) for t, g in rows if g not in (-1, t)]
    missing = given.count(-1)
    if not wrong and not missing:
        assert lists == []
        return
    [found] = lists
    assert found["counts"] == [{"name": "0", "all": len(wrong) + missing, "listed": len(wrong) + missing}]
    errors = [
        abs(int(case["truth"]) - int(case["verdicts"][0][1]))
        for case in found["cases"]
        if case["what"] == "wrong"
    ]
    assert errors == sorted(wrong, reverse=True)
    assert [case["what"] for case in found["cases"]] == ["wrong"] * len(wrong) + ["missing"] * missing


def rated(truth, given):
    data = [sample_row(i, t) for i, t in enumerate(truth)]
    texts = ["no verdict" if g < 0 else f"<score>{g}</score>" for g in given]
    return score_outputs(PointwiseTask(), data, texts)


def test_with_distributions_the_least_probable_labels_come_first():
    """Not the farthest: a judge that is sure of a near score is more wrong than one that doubts a far one."""
    far_but_unsure, near_and_sure, right = (
        (0.4, 0.05, 0.05, 0.2, 0.3),
        (0.01, 0.01, 0.01, 0.96, 0.01),
        (
            *(0.0, 0.0, 0.0, 0.1),
            0.9,
        ),
    )
    [found] = listed(distributions([4, 4, 4], [far_but_unsure, near_and_sure, right]))
    assert [case["key"] for case in found["cases"]] == ["row-1", "row-0"]
    assert found["cases"][0]["verdicts"][0][2] == "p of the label 0.01"


def test_both_orders_of_a_pair_are_one_entry():
    """Mirrored back, so that a judge that always says A is seen to contradict itself."""
    [found] = listed(preferences(["A", "B", "B", "A"], ["A", "A", None, "B"]))
    verdicts = {case["truth"]: case["verdicts"][0][1] for case in found["cases"]}
    assert verdicts == {"A": "A, swapped: B", "B": "no verdict (unparsable), swapped: A"}
    assert [case["what"] for case in found["cases"]] == ["wrong,missing", "wrong"], (
        "the larger mean loss first"
    )
    assert [len(case["outputs"]) for case in found["cases"]] == [2, 2]


def test_numbers_of_right_and_wrong_responses_are_compared(folders):
    answers = read_answers(folders / "scalar" / "predictions.parquet", "scalar")
    [found] = listed(answers)
    first, last = found["cases"][0], found["cases"][-1]
    assert first["verdicts"][0][1] == "0.5 < 2"
    assert last["what"] == "missing"
    assert last["verdicts"][0][1] == "no verdict (overlong)"
    # style 0 loses to 1 and 2, style 1 to 2, in each of six items; all comparisons of the missing answer
    assert found["counts"][0]["all"] == 6 * 3 + 3


def test_the_rest_is_counted_and_each_judge_has_its_worst():
    rng = random.Random(0)
    size = LISTED + 60
    truth = [rng.randrange(5) for _ in range(size)]
    worst = [(t + 1) % 5 for t in truth]
    [found] = listed(rated(truth, worst), rated(truth, truth))
    assert found["counts"] == [
        {"name": "0", "all": size, "listed": LISTED},
        {"name": "1", "all": 0, "listed": 0},
    ]
    assert len(found["cases"]) == LISTED
    assert [case["ranks"] for case in found["cases"]] == [f"{i} -1" for i in range(LISTED)]
    page = render_report(ReportInput([Evaluation("m", scores_result(0, rows=20 + LISTED * 2))]))
    assert f"the worst {LISTED} listed" in page
    assert page.count('<details class="case"') == LISTED


def test_long_texts_are_cut_with_the_rest_counted():
    data = [sample_row(0, 1, response="word " * 1000)]
    [found] = listed(score_outputs(PointwiseTask(), data, ["<score>4</score>"]))
    [response] = [text for title, text in found["cases"][0]["texts"] if title == "Response"]
    assert response.endswith("(4,100 more characters)")


# -- curves


def test_a_run_brings_its_curves_and_its_first_and_last_checkpoint(folders):
    content = read_inputs([folders / "run"])
    assert [e.name for e in content.evaluations] == ["run step 0", "run step 20"]
    [curve] = content.curves
    assert [step for step, _ in curve.points] == [0, 10, 20]
    assert "best_constant" in curve.baselines
    last = curve.points[-1][1]["accuracy"]
    assert last.low <= last.value <= last.high
    assert len(content.runs) == 1
    page = render_report(content)
    assert page.index("From run step 0 to run step 20") < page.index("Figures against steps")


def test_curves_of_two_runs_are_drawn_together(folders, tmp_path):
    shutil.copytree(folders / "run", tmp_path / "other")
    page = render_report(read_inputs([folders / "run", tmp_path / "other"]))
    assert page.count("<h2>Figures against steps") == 1
    assert ">other</text>" in page


def test_a_damaged_curve_is_refused(tmp_path):
    (tmp_path / CURVE).write_text('[{"step": 1}]')
    with pytest.raises(DataError, match=r"curve\.json is not a curve"):
        read_inputs([tmp_path])
