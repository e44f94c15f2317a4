"""Recorded verdicts: the published figure to the last digit, and nothing dropped in silence."""

from __future__ import annotations

import gzip
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.data.samples import Message
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks import Comparison, Item, get_benchmark
from rm_gallery.core.evaluate.benchmarks.aggregate import figure
from rm_gallery.core.evaluate.benchmarks.answers import write_answers
from rm_gallery.core.evaluate.benchmarks.ask import judged, questions
from rm_gallery.core.evaluate.benchmarks.recorded import read_recorded
from rm_gallery.core.evaluate.predictions import score_outputs
from rm_gallery.core.evaluate.shares import share_estimates
from rm_gallery.core.judge.answer import FAILED, UNPARSABLE, Answer
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask
from tests.benchmarks import publishers
from tests.benchmarks.publishers import lines, load

HAIKU = "*arena_hard,judge_model=claude-3-haiku-20240307.jsonl.gz"


def figures_of(name, items, path):
    found = read_recorded(items, path)
    shares = get_benchmark(name).aggregate(items, judged(items, found.questions, found.answers, None))
    return {each: figure(shares, each) for each in (*shares.columns, *shares.averages)}, found


@pytest.fixture
def haiku(shared_data):
    [path] = (shared_data / "judgebench" / "outputs").glob(HAIKU)
    return path


def test_the_published_figures_of_a_judge_on_judgebench(shared_data, haiku):
    items = get_benchmark("judgebench").load(shared_data / "judgebench")
    found = read_recorded(items, haiku)
    shares = get_benchmark("judgebench").aggregate(items, judged(items, found.questions, found.answers, None))
    estimates = share_estimates(shares)
    assert shares.headline == "overall"
    assert (estimates["overall"].value, estimates["overall"].n) == (87 / 270, 270)
    assert round(estimates["overall"].value, 4) == 0.3222
    assert estimates["inconsistent_rate"].value == 0.5
    assert estimates["reversal_rate"].value == pytest.approx(44 / 270, abs=1e-15)
    assert round(estimates["first_position_rate"].value, 3) == 0.633
    assert estimates["invalid_rate"].value == pytest.approx(13 / 540, abs=1e-15)
    assert estimates["invalid_rate"].n == 540
    assert sum(answer.verdict is None for answer in found.answers) == 13
    assert (shares.notes, found.notes) == ((), ())


def test_the_recorded_decision_is_what_the_text_says(shared_data, haiku):
    """The decisions of the file follow from its texts by the published rule: all verdict marks alike, or none."""
    with gzip.open(haiku, "rt", encoding="utf-8") as rows:
        for row in map(json.loads, rows):
            for judgment in row["judgments"]:
                marks = set(re.findall(r"\[\[([AB<>=]+)\]\]", judgment["judgment"]["response"]))
                said = marks.pop().replace(">>", ">") if len(marks) == 1 else None
                assert said == judgment["decision"]


def output(number: int, *decisions, text: str = "I think so.") -> dict:
    row = publishers.judgebench_row(number, "livecodebench", "A>B")
    judgments = [
        None if d is None else {"judgment": {"response": text}, "decision": None if d == "?" else d}
        for d in decisions
    ]
    return {**row, "judge_name": "arena_hard", "judgments": judgments}


@pytest.fixture
def five(tmp_path):
    """Five pairs of JudgeBench, A is right."""
    rows = [publishers.judgebench_row(i, "livecodebench", "A>B") for i in range(5)]
    return get_benchmark("judgebench").load(lines(tmp_path / "pairs.jsonl", rows))


def test_judgments_that_failed_or_decided_nothing_are_told_apart(five, tmp_path):
    rows = [output(0, "A>B", "B>A"), output(1, None, "B>A"), output(2, "?", "A>B"), output(3, "A<B", "A=B")]
    path = lines(tmp_path / "out.jsonl", [*rows, output(4, "A=B", "A=B")])
    figures, found = figures_of("judgebench", five, path)
    problems = [answer.problem.split(":")[0] for answer in found.answers]
    assert problems == ["", "", FAILED, "", UNPARSABLE, "", UNPARSABLE, "", "", ""]
    assert found.answers[0].text == "I think so."
    assert figures["overall_partial"] == pytest.approx(2 / 5)  # the first; the second by its one verdict
    assert figures["invalid_rate"] == pytest.approx(3 / 10)
    assert figures["inconsistent_rate"] == pytest.approx(3 / 5)


def test_one_order_only_is_said_and_order_is_undefined(five, tmp_path):
    path = lines(tmp_path / "out.jsonl", [output(i, "A>B" if i else "B>A") for i in range(5)])
    figures, found = figures_of("judgebench", five, path)
    assert figures["overall_partial"] == pytest.approx(4 / 5)
    assert figures["invalid_rate"] == 0
    assert all(math.isnan(figures[name]) for name in ("flip_rate", "inconsistent_rate", "reversal_rate"))
    assert "one order of each pair" in found.notes[0]


def test_answers_that_are_missing_or_about_nothing_are_counted_and_said(five, tmp_path):
    rows = [output(i, "A>B", "B>A") for i in (0, 1, 2, 8, 9)]
    figures, found = figures_of("judgebench", five, lines(tmp_path / "out.jsonl", rows))
    assert figures["overall_partial"] == pytest.approx(3 / 5)
    assert figures["invalid_rate"] == pytest.approx(4 / 10)
    missing, other = found.notes
    assert missing.startswith("4 of 10 answers are not in out.jsonl, the first about 'pair-3'")
    assert other.startswith(
        "4 answers in out.jsonl are about nothing in the benchmark, the first about 'pair-8'"
    )


def test_a_file_of_another_benchmark_is_an_error(five, tmp_path):
    with pytest.raises(DataError, match="answers no question of this benchmark: its ids, as 'pair-77'"):
        read_recorded(five, lines(tmp_path / "out.jsonl", [output(77, "A>B", "B>A")]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"unique_id": "pair-0", "order": "forward", "verdict": "A"}] * 2,
            r"x\.jsonl:2: a second answer.*forward",
        ),
        ([{"unique_id": "pair-0", "order": "forwards", "verdict": "A"}], "order is none of"),
        ([{"unique_id": "pair-0", "order": "forward", "verdict": "C"}], "verdict is none of"),
        ([{"unique_id": "pair-0"}], "exactly one of verdict and scores"),
        ([{"unique_id": "pair-0", "scores": ["high"]}], "scores is not a list of numbers"),
        ([{"verdict": "A"}], "unique_id is missing"),
        ([{"pair_id": "pair-0", "judgments": []}], "judgments is not a list of one judgment"),
        (
            [
                {"unique_id": "pair-0", "order": "forward", "verdict": "A"},
                {"unique_id": "pair-1", "scores": [1, 2]},
            ],
            "give one kind",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_an_error(five, tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_recorded(five, lines(tmp_path / "x.jsonl", rows))


def test_own_lines_of_verdicts_are_in_the_terms_of_what_was_shown(five, tmp_path):
    rows = [
        {"unique_id": "pair-0", "order": "forward", "verdict": "A"},
        {"unique_id": "pair-0", "order": "swapped", "verdict": "B"},  # the same response
        {"unique_id": "pair-1", "order": "forward", "verdict": "A"},
        {"unique_id": "pair-1", "order": "swapped", "verdict": "A"},  # the first one again
        {"unique_id": "pair-2", "order": "forward", "verdict": None, "text": "Who knows?"},
    ]
    figures, found = figures_of("judgebench", five, lines(tmp_path / "x.jsonl", rows))
    assert figures["reversal_rate"] == pytest.approx(1 / 5)
    assert figures["first_position_rate"] == pytest.approx(3 / 4)
    assert figures["overall_partial"] == pytest.approx(1 / 5)
    assert found.answers[4].text == "Who knows?"


def test_own_lines_of_scores_work_on_a_benchmark_of_many_comparisons(tmp_path):
    items = load("rm_bench", tmp_path)
    rows = [{"unique_id": item.unique_id, "scores": [3, 3, 3, 1, 2, 4]} for item in items]
    rows[0]["scores"][5] = None
    figures, found = figures_of("rm_bench", items, lines(tmp_path / "x.jsonl", rows))
    size = len(items)
    assert figures["style_0_0"] == figures["style_2_1"] == 1
    assert figures["style_2_2"] == 0
    assert figures["invalid_rate"] == pytest.approx(3 / (9 * size))
    assert found.questions.responses == 1


def test_a_comparison_of_an_item_with_several_is_named_by_its_position(tmp_path):
    items = load("jsonl", tmp_path)
    rows = [
        {"unique_id": "3", "comparison": i, "order": order, "verdict": v}
        for i, verdicts in enumerate(["AB", "AB", "tt"])
        for order, v in zip(("forward", "swapped"), ["tie" if v == "t" else v for v in verdicts], strict=True)
    ]
    figures, found = figures_of("jsonl", items, lines(tmp_path / "x.jsonl", rows))
    assert figures["accuracy"] == pytest.approx(3 / 8)
    assert found.notes[0].startswith("10 of 16 answers are not in x.jsonl")


# -- predictions.parquet

distribution = st.tuples(*[st.integers(1, 5)] * 3).map(lambda w: tuple(x / sum(w) for x in w))
pair_answer = st.one_of(
    st.sampled_from(["A", "B", "tie"]).map(lambda v: Answer(verdict=v, text=f"I say {v}")),
    distribution.map(lambda p: Answer(verdict=("A", "B", "tie")[p.index(max(p))], probabilities=p, mass=0.5)),
    st.sampled_from(["unparsable: two tags", "overlong: 9000 tokens"]).map(lambda p: Answer(problem=p)),
)
score_answer = st.one_of(
    st.integers(0, 4).map(lambda v: Answer(verdict=v)),
    st.lists(st.integers(1, 5), min_size=5, max_size=5).map(
        lambda w: Answer(verdict=w.index(max(w)), probabilities=tuple(x / sum(w) for x in w))
    ),
    st.just(Answer(problem="overlong: 9000 tokens")),
)


DIMENSIONS = MultiDimensionTask(dimensions={"helpfulness": 2, "correctness": 1})
dimensions_answer = st.one_of(
    st.tuples(st.integers(0, 4), st.integers(0, 4)).map(
        lambda v: Answer(verdict={"helpfulness": v[0], "correctness": v[1]})
    ),
    st.just(Answer(problem="overlong: 9000 tokens")),
)


class TieBetween(PairwiseTask):
    """Its verdicts in another order, so that the probabilities of an answer are in that order."""

    def verdicts(self):
        return ("A", "tie", "B")


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        (PairwiseTask(), pair_answer),
        (TieBetween(), pair_answer),
        (PointwiseTask(), score_answer),
        (DIMENSIONS, dimensions_answer),
        (None, st.floats(-3, 3).map(lambda x: Answer(score=x))),
    ],
    ids=["compares", "compares, tie between", "scores", "dimensions", "scalar"],
)
@settings(max_examples=25)
@given(data=st.data())
def test_predictions_are_read_back_as_they_were_judged(tmp_path_factory, task, answer, data):
    folder = tmp_path_factory.mktemp("predictions")
    items = load("jsonl", folder)
    asked = questions(items, 1 if task is None else task.responses)
    answers = [data.draw(answer) for _ in asked.asked]
    path = folder / "predictions.parquet"
    write_answers(path, items, asked, answers, task)
    found = read_recorded(items, path)
    assert judged(items, found.questions, found.answers, None) == judged(items, asked, answers, task)
    assert [a.problem for a in found.answers if task is not None and task.responses == 2] == [
        a.problem for a in answers if task is not None and task.responses == 2
    ]
    before = path.read_bytes()
    write_answers(path, items, asked, answers, task)
    assert path.read_bytes() == before


def test_predictions_say_which_response_is_better_than_which(tmp_path):
    """So that a report can tell the numbers of right and wrong responses apart without the benchmark's file."""
    import pyarrow.parquet as pq

    items = [
        Item(
            "best",
            "c",
            (Message("user", "q"),),
            ("x", "y", "y"),
            (Comparison(0, 1, "A"), Comparison(2, 0, "B")),
        ),
        Item("tie", "c", (Message("user", "q"),), ("x", "y"), (Comparison(0, 1, "tie"),)),
        Item("second", "c", (Message("user", "q"),), ("x", "y"), (Comparison(0, 1, "B"),)),
    ]
    path = tmp_path / "predictions.parquet"

    def better_than(task):
        asked = questions(items, task.responses)
        write_answers(path, items, asked, [Answer(task.verdicts()[0])] * len(asked.asked), task)
        return pq.read_table(path).column("better_than").to_pylist()

    assert better_than(PointwiseTask()) == [["best#1"], [], [], [], [], ["second#0"]]
    assert better_than(PairwiseTask()) == [None] * 8


def test_predictions_of_rows_are_read_as_well(tmp_path):
    """What `rmg eval --data` writes about the rows of the questions."""
    items = load("judgebench", tmp_path)
    asked, task = questions(items, 2), PairwiseTask()
    answers = [Answer(verdict="A") for _ in asked.asked]
    score_outputs(task, asked.rows, answers).to_parquet(tmp_path / "predictions.parquet")
    figures, found = figures_of("judgebench", items, tmp_path / "predictions.parquet")
    assert figures["first_position_rate"] == figures["flip_rate"] == 1
    assert found.notes == ()


def test_another_parquet_is_an_error(five, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"unique_id": ["pair-0"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no columns unique_id and predicted"):
        read_recorded(five, tmp_path / "x.parquet")
