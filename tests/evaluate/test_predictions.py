"""`Predictions`: built from texts or answers, written and read back, and what they refuse."""

from __future__ import annotations

import dataclasses
import math

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate import Predictions, compute_metrics, score_outputs
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask

from .helpers import distributions, expected, pair_row, preferences, sample_row, scores

TEXTS = ["<score>3</score>", "no verdict", "<score>9</score>", "<think>hm</think><score>0</score>"]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(TEXTS)), min_size=1, max_size=12))
def test_an_answer_that_was_written_counts_as_its_text(pairs):
    task, rows = PointwiseTask(), [sample_row(i, label) for i, (label, _) in enumerate(pairs)]
    texts = [text for _, text in pairs]
    found = score_outputs(task, rows, texts)
    answers = [
        Answer(verdict=v, text=t, problem=p)
        for v, t, p in zip(found.predicted, texts, found.problem, strict=True)
    ]
    assert score_outputs(task, rows, answers) == found


def test_why_there_is_no_verdict_is_kept():
    rows = [sample_row(i, 3) for i in range(4)]
    answers = ["<score>3</score>", "no verdict", Answer(problem="overlong: 9,000 tokens"), Answer(text="hm")]
    found = score_outputs(PointwiseTask(), rows, answers)
    assert found.predicted == (3, None, None, None)
    assert found.reward == (1.0, 0.0, 0.0, 0.0)
    starts = [problem.split(":")[0] for problem in found.problem]
    assert starts == ["", "unparsable", "overlong", "unparsable"]


def test_a_distribution_is_kept_and_its_verdict_is_rewarded():
    found = distributions([3, 3], [[0, 0, 0.25, 0.75, 0], None], mass=0.125)
    assert found.probabilities == ((0.0, 0.0, 0.25, 0.75, 0.0), None)
    assert (found.mass, found.predicted, found.reward) == ((0.125, None), (3, None), (1.0, 0.0))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(verdict=3, probabilities=(0.5, 0.5)), "not a distribution"),
        (Answer(verdict=3, probabilities=(0.5, 0.5, 0.5, 0.0, 0.0)), "not a distribution"),
        (Answer(verdict=3, probabilities=(-0.5, 0.5, 0.5, 0.5, 0.0)), "not a distribution"),
        (Answer(verdict=3, probabilities=(math.nan, 0.5, 0.5, 0.0, 0.0)), "not a distribution"),
        (Answer(verdict=7), "not one of"),
    ],
)
def test_an_answer_to_another_question_is_refused_by_the_name_of_its_row(answer, problem):
    with pytest.raises(DataError, match=f"row-0: .*{problem}"):
        score_outputs(PointwiseTask(), [sample_row(0, 1)], [answer])


def test_a_file_from_before_there_were_distributions_still_reads(tmp_path):
    now = scores([1, 4], [-1, 4])
    now.to_parquet(tmp_path / "now.parquet")
    table = pq.read_table(tmp_path / "now.parquet")
    pq.write_table(table.drop_columns(["problem", "probabilities", "mass"]), tmp_path / "before.parquet")
    read = Predictions.from_parquet(tmp_path / "before.parquet")
    assert read == dataclasses.replace(now, problem=("unparsable", ""))
    assert compute_metrics(read) == pytest.approx(compute_metrics(now), nan_ok=True)


def test_a_missing_label_is_refused_by_the_name_of_its_row():
    row = sample_row(7, 3)
    row["helpfulness"] = None
    row["output"]["label"] = {}
    with pytest.raises(DataError, match="row-7"):
        score_outputs(PointwiseTask(), [row], ["<score>3</score>"])


def test_each_row_needs_exactly_one_output():
    with pytest.raises(DataError, match="2 rows and 1 outputs"):
        score_outputs(PointwiseTask(), [sample_row(0, 1), sample_row(1, 1)], ["<score>3</score>"])


def test_words_are_those_of_both_responses_of_a_pair():
    found = score_outputs(PairwiseTask(), [pair_row(0, "A", a="one two", b="one two three")], [""])
    assert (found.words, found.words_b, found.predicted) == ((2,), (3,), (None,))


def test_predictions_survive_parquet_and_the_same_ones_give_the_same_bytes(tmp_path):
    for name, before in {
        "scores": scores([1, 4], [-1, 4]),
        "pairs": preferences(["A", "B"], ["tie", None]),
        "distributions": distributions([1, 2], [[0.1, 0.2, 0.3, 0.4, 0.0], None]),
        "preferences": score_outputs(
            PairwiseTask(), [pair_row(0, "A")], [expected(PairwiseTask(), [0.2, 0.5, 0.3])]
        ),
    }.items():
        before.to_parquet(tmp_path / f"{name}.parquet")
        before.to_parquet(tmp_path / f"{name}-again.parquet")
        assert Predictions.from_parquet(tmp_path / f"{name}.parquet") == before
        assert (tmp_path / f"{name}.parquet").read_bytes() == (
            tmp_path / f"{name}-again.parquet"
        ).read_bytes()
    assert len(list(tmp_path.iterdir())) == 8  # no temporary file is left


def test_a_file_that_is_not_predictions_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="cannot be read"):
        Predictions.from_parquet(path)
