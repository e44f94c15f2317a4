"""Graders over saved judges: the grade is the judge's distribution, and the order of a pair does not matter."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.graders import (
    NO_REASON,
    GraderError,
    GraderRank,
    GraderScore,
    JudgeGrader,
    PairJudgeGrader,
)
from rm_gallery.core.graders.common import (
    CorrectnessGrader,
    HallucinationGrader,
    HelpfulnessGrader,
    RelevanceGrader,
)
from rm_gallery.core.graders.fields import pair_row, response_row
from rm_gallery.core.graders.judge import reason
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.read import DASHES, read, tally
from rm_gallery.core.models import OpenAIChatModel
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from rm_gallery.core.tasks.saved import save_task
from rm_gallery.gallery.graders import HelpSteer2PairwiseGrader, HelpSteer2PointwiseGrader
from tests.endpoint import Endpoint, Reply, Token, status

texts = st.text(alphabet="ab \n?", min_size=1, max_size=20)
queries = texts.filter(str.strip)


@pytest.fixture(scope="module")
def plain(judge_folders):
    """The pointwise judge as `rmg eval` loads it."""
    return LocalJudge.load(judge_folders["pointwise"])


@pytest.fixture(autouse=True)
def untrained(caplog):
    """These judges were never trained, and say so once."""
    caplog.set_level(logging.ERROR, logger="rm_gallery.judge")


# -- one response


def test_the_score_is_the_mean_of_the_judges_distribution(judges, plain):
    asked = [("What is 2 + 3?", "5"), ("Why?", "Because of the weather."), ("Why?", "")]
    made = HelpSteer2PointwiseGrader(judges["pointwise"])

    async def all_at_once():
        return await asyncio.gather(*(made.aevaluate(query=q, response=r) for q, r in asked))

    results = asyncio.run(all_at_once())
    task = PointwiseTask()
    rows = [task.messages(response_row(*one)) for one in asked]
    answers = plain.answer(task, rows, mode="expected", max_new_tokens=8)
    for result, answer in zip(results, answers, strict=True):
        assert isinstance(result, GraderScore)
        assert result.score == pytest.approx(answer.value(task), abs=1e-5)
        assert result.metadata["verdict"] == answer.verdict
        assert list(result.metadata["probabilities"].values()) == pytest.approx(
            answer.probabilities, abs=1e-5
        )
        assert result.metadata["mass"] == pytest.approx(answer.mass, rel=1e-3)
        assert result.reason == NO_REASON


@settings(max_examples=20)
@given(query=queries, response=texts)
def test_every_score_is_on_the_scale_and_names_its_task(judges, query, response):
    result = HelpSteer2PointwiseGrader(judges["pointwise"]).evaluate(query=query, response=response)
    assert 0 <= result.score <= 4
    said = result.metadata
    assert (said["task"], said["criterion"], said["scale"], said["mode"]) == (
        "pointwise",
        "helpfulness",
        [0, 4],
        "expected",
    )
    assert sum(said["probabilities"].values()) == pytest.approx(1)


def test_a_written_verdict_is_the_score_itself_or_no_score(judges, plain):
    """A judge that was not trained writes no verdict."""
    result = HelpSteer2PointwiseGrader(judges["pointwise"], mode="greedy").evaluate(query="q", response="r")
    assert isinstance(result, GraderError)
    assert (result.kind, result.metadata["task"]) == ("unparsable", "pointwise")
    [written] = plain.generate([PointwiseTask().messages(response_row("q", "r"))], max_new_tokens=8)
    assert result.metadata["text"] == written


def test_what_does_not_fit_the_context_is_an_error(judges):
    result = HelpSteer2PointwiseGrader(judges["pointwise"]).evaluate(query="q " * 1100, response="r")
    assert (result.kind, "context 2048" in result.error) == ("overlong", True)


def test_a_judge_that_gives_legal_verdicts_no_probability_is_named_once(judges, caplog):
    caplog.set_level(logging.WARNING, logger="rm_gallery.judge")
    made = HelpSteer2PointwiseGrader(judges["pointwise"])
    for response in "abc":
        assert made.evaluate(query="q", response=response).metadata["mass"] < 0.5
    assert len(caplog.records) == 1
    assert "was it trained on another question" in caplog.text


# -- a grader of a criterion over a judge of another one


def test_another_criterion_is_warned_of_once_and_named_in_the_result(judges):
    with pytest.warns(
        UserWarning, match="grader relevance: .* was trained to judge helpfulness from 0 to 4"
    ) as told:
        made = RelevanceGrader(judges["pointwise"])
    assert [warning.filename for warning in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = made.evaluate(query="q", response="r")
        same = HelpSteer2PointwiseGrader(judges["pointwise"]).evaluate(query="q", response="r")
    assert (result.name, result.score) == ("relevance", pytest.approx(same.score))
    assert (result.metadata["criterion"], result.metadata["task"]) == ("helpfulness", "pointwise")


def test_the_same_criterion_is_no_cause_for_a_warning(judges):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HelpfulnessGrader(judges["pointwise"], name="mine")
        made = [
            kind(judges["multi_dimension"])
            for kind in (RelevanceGrader, CorrectnessGrader, HelpfulnessGrader)
        ]
    results = [grader.evaluate(query="q", response="r") for grader in made]
    assert [result.metadata["criterion"] for result in results] == ["relevance", "correctness", "helpfulness"]
    assert len({result.score for result in results}) == 3
    assert all(0 <= result.score <= 4 for result in results)


def test_fields_that_the_judge_does_not_read_are_named(judges):
    with pytest.warns(UserWarning, match=r"; context is not read\.$"):
        made = HallucinationGrader(judges["pointwise"])
    assert isinstance(made.evaluate(query="q", response="r", context="c"), GraderScore)
    with pytest.raises(TypeError, match="context"):
        made.evaluate(query="q", response="r")


def test_of_several_dimensions_the_score_is_the_weighted_mean(judges):
    mean = JudgeGrader(judges["multi_dimension"], name="all")
    parts = [
        JudgeGrader(judges["multi_dimension"], criterion=name)
        for name in ("helpfulness", "correctness", "relevance")
    ]
    whole = mean.evaluate(query="q", response="r")
    scores = [part.evaluate(query="q", response="r").score for part in parts]
    assert whole.score == pytest.approx(sum(scores) / 3)
    assert set(whole.metadata["verdict"]) == {"helpfulness", "correctness", "relevance"}


@pytest.mark.parametrize(
    ("kind", "judge", "said"),
    [
        (RelevanceGrader, "pairwise", "compares two responses: use a pairwise grader"),
        (HelpSteer2PointwiseGrader, "pairwise", "compares two responses"),
        (HelpSteer2PairwiseGrader, "pointwise", "rates one response: use a pointwise grader"),
    ],
)
def test_a_judge_of_the_other_kind_is_refused(judges, kind, judge, said):
    with pytest.raises(ConfigError, match=said):
        kind(judges[judge])


def test_a_reasoning_judge_gives_its_own_reason(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "thinks")
    save_task(folder, "pointwise", PointwiseTask(think=True), max_response_length=8)
    model = OpenAIChatModel(str(folder), is_local=True)
    made = JudgeGrader(model)
    assert made.judge.mode == "greedy"
    with pytest.raises(ConfigError, match="reasons before its verdict: ask in mode vote, or greedy"):
        JudgeGrader(model, mode="expected")
    model.close()
    task = made.task
    text = "<think>It is short.\nIt is right.</think>\n<score>3</score>"
    assert reason(task, read(task, text)) == "It is short.\nIt is right."
    assert reason(task, read(task, "Right. <score>3</score>")) == "Right."
    assert reason(task, read(task, "<think></think><score>3</score>")) == NO_REASON
    named = "<think>I am to end with <score>. It is short.</think>\n<score>3</score>"
    assert reason(task, read(task, named)) == "I am to end with <score>. It is short."
    vote = tally(task, ["<think>no</think><score>1</score>", *2 * ["<think>yes</think><score>3</score>"]])
    assert (vote.verdict, DASHES in vote.text, reason(task, vote)) == (3, True, "yes")


# -- two responses


@settings(max_examples=25)
@given(query=queries, first=texts, second=texts)
def test_swapping_the_responses_swaps_the_ranks(judges, query, first, second):
    made = HelpSteer2PairwiseGrader(judges["pairwise"])
    forward = made.evaluate(query=query, responses=[first, second])
    swapped = made.evaluate(query=query, responses=[second, first])
    assert isinstance(forward, GraderRank)
    assert forward.rank == swapped.rank[::-1]
    assert forward.metadata["consistent"] == swapped.metadata["consistent"]
    orders = forward.metadata["orders"], swapped.metadata["orders"]
    # A is the first of the responses in both orders, and another one in the other pair
    other = {"A": "B", "B": "A", "tie": "tie"}
    assert orders[0]["forward"]["verdict"] == other[orders[1]["swapped"]["verdict"]]
    mirrored = {other[label]: p for label, p in orders[1]["swapped"]["probabilities"].items()}
    assert orders[0]["forward"]["probabilities"] == pytest.approx(mirrored, abs=1e-5)
    if first == second:
        assert forward.rank == (1, 1)


VERDICTS = ["A", "B", "tie", "none of them"]


@pytest.mark.parametrize("forward", VERDICTS)
@pytest.mark.parametrize("swapped", VERDICTS)
def test_written_verdicts_of_both_orders_come_to_one_ranking(chat, forward, swapped):
    """Over an endpoint, which is shown `apple` first in the given order."""

    def answer(body):
        text = body["messages"][-1]["content"]
        given = forward if text.index("apple") < text.index("pear") else swapped
        return f"<preference>{given}</preference>"

    with Endpoint(answer=answer) as endpoint:
        made = HelpSteer2PairwiseGrader(chat(endpoint), mode="greedy")
        result = made.evaluate(query="which?", responses=["apple", "pear"])
    orders = result.metadata["orders"]
    if "none of them" in (forward, swapped):
        assert isinstance(result, GraderError)
        assert result.kind == "unparsable"
        assert [bool(orders[order]["problem"]) for order in ("forward", "swapped")] == [
            verdict == "none of them" for verdict in (forward, swapped)
        ]
        return
    points = {"A": 1, "tie": 0, "B": -1}
    balance = points[forward] - points[swapped]  # what speaks for the first response
    assert result.rank == ((1, 2) if balance > 0 else (2, 1) if balance < 0 else (1, 1))
    mirrored = {"A": "B", "B": "A", "tie": "tie"}[swapped]
    assert (orders["forward"]["verdict"], orders["swapped"]["verdict"]) == (forward, mirrored)
    assert result.metadata["consistent"] == (points[forward] == -points[swapped])


def test_an_order_that_fails_is_an_error_with_the_requests_cause(chat):
    with Endpoint(answer=lambda _: "<preference>A</preference>", script=[status(500)]) as endpoint:
        made = PairJudgeGrader(chat(endpoint), PairwiseTask(), mode="greedy")
        result = made.evaluate(query="q", responses=["a", "b"])
    assert (type(result), result.kind, result.metadata["status"]) == (GraderError, "server", 500)


@pytest.mark.parametrize("responses", [["a"], ["a", "b", "c"], "ab", None, ["a", None], []])
def test_what_is_no_pair_is_an_error(judges, responses):
    result = HelpSteer2PairwiseGrader(judges["pairwise"]).evaluate(query="q", responses=responses)
    assert (type(result), result.kind) == (GraderError, "data")


# -- a judge behind an endpoint


def distribution(*shares):
    """`<score>d</score>` with these probabilities of the digits."""
    top = tuple((str(digit), math.log(share)) for digit, share in enumerate(shares))
    best = max(top, key=lambda pair: pair[1])
    return Reply(tokens=(Token("<score>", 0.0), Token(*best, top), Token("</score>", 0.0)))


def test_an_endpoints_distribution_is_read_where_the_verdicts_part(chat):
    with Endpoint(answer=lambda _: distribution(0.1, 0.1, 0.2, 0.4, 0.2)) as endpoint:
        result = HelpSteer2PointwiseGrader(chat(endpoint)).evaluate(query="q", response="r")
    assert result.score == pytest.approx(0.1 + 0.4 + 1.2 + 0.8)
    assert (result.metadata["verdict"], result.metadata["mass"]) == (3, pytest.approx(1))
    [body] = endpoint.requests
    row = PointwiseTask().messages(response_row("q", "r"))
    assert (body["messages"], body["top_logprobs"]) == (row, 20)


def test_an_endpoint_without_log_probabilities_is_asked_otherwise(chat):
    with Endpoint(answer=lambda _: "<score>2</score>", gives_logprobs=False) as endpoint:
        with pytest.raises(ConfigError, match="use greedy or vote"):
            HelpSteer2PointwiseGrader(chat(endpoint)).evaluate(query="q", response="r")
        result = HelpSteer2PointwiseGrader(chat(endpoint), mode="greedy").evaluate(query="q", response="r")
        assert (result.score, result.metadata["verdict"]) == (2.0, 2)
        assert (result.metadata["probabilities"], result.metadata["mass"]) == (None, None)
        voted = HelpSteer2PointwiseGrader(chat(endpoint), mode="vote").evaluate(query="q", response="r")
        assert (voted.score, voted.metadata["mass"]) == (2.0, 1.0)


def test_verdicts_that_one_token_does_not_tell_apart_are_asked_in_writing(chat):
    from rm_gallery.core.tasks import MultiDimensionTask

    with Endpoint() as endpoint:
        assert JudgeGrader(chat(endpoint), MultiDimensionTask()).judge.mode == "greedy"
        with pytest.raises(ConfigError, match="carries no task"):
            JudgeGrader(chat(endpoint))


def test_verdicts_that_are_no_numbers_give_no_score(chat):
    class Grades(PointwiseTask):
        def verdicts(self):
            return ["good", "bad"]

    with Endpoint() as endpoint, pytest.raises(ConfigError, match="no numbers: it gives no score"):
        JudgeGrader(chat(endpoint), Grades(), mode="greedy")


def test_rows_are_as_the_task_takes_them():
    task = PairwiseTask()
    text = task.prompt(pair_row([{"role": "user", "content": "[1, 2]"}], "one", "two"))
    assert "# Query\n[1, 2]\n\n# Response A\none" in text
    assert "# Query\n[1, 2]\n" in PointwiseTask().prompt(response_row("[1, 2]", "r"))
