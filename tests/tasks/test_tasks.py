"""A task's prompt, truth and reward: what must hold for every row and every output."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.data.samples import Message
from rm_gallery.core.errors import ConfigError, DataError, InvalidVerdict
from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask, Task, get_task, task_names
from tests.tasks.rows import KEYS, LABELS, QUERY, older_shape, pair, sample
from tests.templates.test_parse import PREFERENCES, SCORES

TASKS = [PointwiseTask(), PairwiseTask(), MultiDimensionTask()]
ROWS = {"pointwise": sample().to_row(), "pairwise": pair().to_row(), "multi_dimension": sample().to_row()}
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)

# outputs that come close to a verdict: pieces of the tags, legal and illegal values, reasoning
PIECES = [
    "<score>", "</score>", "<preference>", "</preference>", "<think>", "</think>", "<SCORE>", "<ſcore>", "<", ">",
    "0", "1", "2", "3", "4", "5", "-1", "4.0", "3/4", "٣", "３", "A", "B", "tie", "TIE", "А", " ", "\n", "\x00",
    "\ud800", "X", *(f"<{name}>" for name in LABELS), *(f"</{name}>" for name in LABELS),
]  # fmt: skip
outputs = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


def truths(task: Task[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(list(task.verdicts()))


@every_task
@given(data=st.data())
def test_scoring_never_raises_and_an_invalid_verdict_earns_no_more_than_its_price(
    task: Task[Any], data: st.DataObject
) -> None:
    text, truth = data.draw(outputs), data.draw(truths(task))
    result = task.compute_score("test", text, truth)
    try:
        predicted = task.parse(text)
    except InvalidVerdict:
        assert (result["score"], result["parsed"], result["acc"]) == (0.0, 0, 0)
    else:
        assert predicted in task.verdicts()
        assert result["parsed"] == 1
        assert result["acc"] == (predicted == truth)
        assert 0 <= result["score"] <= 1
        assert (result["score"] == 1) == (predicted == truth)


@given(data=st.data(), price=st.floats(-10, 0))
def test_the_price_of_an_invalid_verdict_is_the_settings(data: st.DataObject, price: float) -> None:
    task = PointwiseTask(RewardConfig(invalid_reward=price))
    assert task.compute_score("test", "no tag", 2)["score"] == price
    worst = task.compute_score("test", task.format(0), 4)["score"]
    assert worst == pytest.approx(math.exp(-2))
    assert price < worst


@every_task
def test_parse_of_format_is_every_verdict(task: Task[Any]) -> None:
    for verdict in task.verdicts():
        assert task.parse(task.format(verdict)) == verdict
        assert task.check_truth(verdict) == verdict


@pytest.mark.parametrize("task", TASKS[:2], ids=lambda task: task.name)
def test_every_output_gives_the_same_keys_and_types(task: Task[Any]) -> None:
    truth = task.verdicts()[1]
    for text, _, _ in [*SCORES, *PREFERENCES]:
        for info in (None, {}, {"metadata": {"preference_strength": math.nan}}):
            result = task.compute_score("test", text, truth, info, unknown_option=1)
            assert {key: type(value) for key, value in result.items()} == KEYS[task.name]
            assert result["acc"] == result["accuracy"]


def test_an_invalid_score_has_the_worst_error_and_no_number() -> None:
    result = PointwiseTask().compute_score("test", "<score>5</score>", 3)
    assert (result["predicted_helpfulness"], result["abs_error"], result["parsed"]) == (-1, 4.0, 0)


def test_an_invalid_preference_is_not_a_tie() -> None:
    result = PairwiseTask().compute_score("test", "<preference>C</preference>", "tie")
    assert (result["predicted_preference"], result["score"], result["acc"]) == ("invalid", 0.0, 0)


def test_rewards_by_hand() -> None:
    pointwise, pairwise, several = TASKS
    for error in range(5):
        assert pointwise.compute_score("t", pointwise.format(error), 0)["score"] == pytest.approx(
            [1.0, 0.60653, 0.36788, 0.22313, 0.13534][error], abs=1e-5
        )
    assert pairwise.compute_score("t", "<preference>B</preference>", "B")["score"] == 1.0
    assert pairwise.compute_score("t", "<preference>tie</preference>", "B")["score"] == 0.0
    half = PairwiseTask(RewardConfig(tie=0.5))
    assert half.compute_score("t", "<preference>tie</preference>", "B")["score"] == 0.5
    text = several.format({"helpfulness": 3, "correctness": 4, "relevance": 4})
    result = several.compute_score("t", text, LABELS)
    assert result["score"] == pytest.approx((1 + 1 + math.exp(-2)) / 3)
    assert result["abs_error"] == pytest.approx(4 / 3)
    weighted = MultiDimensionTask(weights={"helpfulness": 3, "correctness": 0, "relevance": 1})
    assert weighted.compute_score("t", text, LABELS)["score"] == pytest.approx(0.75 + 0.25 * math.exp(-2))


# -- the truth


@pytest.mark.parametrize(
    "truth", [3, 3.0, np.int64(3), np.float32(3), {"helpfulness": 3}], ids=lambda value: repr(value)
)
def test_a_legal_score_in_every_form(truth: Any) -> None:
    result = PointwiseTask().compute_score("t", "<score>3</score>", truth)
    assert (result["true_helpfulness"], result["acc"]) == (3, 1)
    assert type(result["true_helpfulness"]) is int


@pytest.mark.parametrize(
    "truth",
    [None, "3", "", True, 5, -1, 2.5, math.nan, math.inf, {}, {"helpfulness": None}, [3], np.array([1, 2])],
    ids=repr,
)
def test_a_bad_score_is_refused_by_the_reward(truth: Any) -> None:
    with pytest.raises(DataError, match="from 0 to 4"):
        PointwiseTask().compute_score("t", "<score>3</score>", truth)
    with pytest.raises(DataError):
        MultiDimensionTask().check_truth({**LABELS, "relevance": truth})


@pytest.mark.parametrize(
    "truth",
    ["", "a", "C", "invalid", 1, ["A"], np.array(["A", "B"]), {"preferred": None}, math.nan],
    ids=repr,
)
def test_a_bad_preference_is_refused_by_the_reward(truth: Any) -> None:
    with pytest.raises(DataError, match="'A', 'B' or 'tie'"):
        PairwiseTask().compute_score("t", "<preference>A</preference>", truth)


@pytest.mark.parametrize("metadata", [{"preferred": "B", "preference_strength": 2}, '{"preferred": "B"}'])
def test_the_preference_is_found_in_the_metadata(metadata: Any) -> None:
    result = PairwiseTask().compute_score("t", "<preference>B</preference>", None, {"metadata": metadata})
    assert (result["true_preference"], result["acc"]) == ("B", 1)
    assert result["preference_strength"] == (2 if isinstance(metadata, dict) else 0)


@every_task
@pytest.mark.parametrize("bad", [None, 7, "maybe"])
def test_the_row_with_a_bad_label_is_named(task: Task[Any], bad: Any) -> None:
    row = {**ROWS[task.name]}
    for name in ("helpfulness", "preferred"):
        row.pop(name, None)
    if task.name == "pairwise":
        row["metadata"] = {}
        row |= {} if bad is None else {"preferred": bad}
    else:
        row["output"] = {"content": "Fibre.", "label": {**LABELS, "helpfulness": bad}}
    with pytest.raises(DataError, match=f"^{row['unique_id']}: (?!{row['unique_id']})"):
        task.truth(row)


def test_a_null_column_does_not_hide_the_label() -> None:
    assert PairwiseTask().truth({**pair().to_row(), "preferred": None}) == "A"
    assert PointwiseTask().truth({**sample().to_row(), "helpfulness": None}) == 3


# -- the question


@every_task
def test_both_shapes_of_a_row_read_alike(task: Task[Any]) -> None:
    row = ROWS[task.name]
    older = older_shape(row)
    assert task.messages(older) == task.messages(row)
    assert task.truth(older) == task.truth(row)
    assert task.cluster(older) == task.cluster(row)


@every_task
def test_the_prompt_holds_the_conversation_the_responses_and_the_tags(task: Task[Any]) -> None:
    text = task.prompt(ROWS[task.name])
    for part in (
        "User: Hi",
        "Assistant: Hello.",
        "Why are apples healthy?",
        "Fibre.",
        *task.template.verdict_fields(),
    ):
        assert part in text
    assert "<think>" not in text
    assert "<think>" in type(task)(think=True).prompt(ROWS[task.name])
    assert type(task)(instruction="Be brief.").prompt(ROWS[task.name]).startswith("Be brief.")


def test_the_question_needs_no_label() -> None:
    row = pair().to_row()
    unlabelled = {key: row[key] for key in ("input", "output")}
    for labels in ({}, {"preferred": None}, {"preferred": 7, "preference_strength": "x"}):
        assert PairwiseTask().prompt({**unlabelled, **labels}) == PairwiseTask().prompt(row)


responses = st.text(min_size=1, max_size=30)


@given(a=responses, b=responses, preferred=st.sampled_from(["A", "B", "tie"]), strength=st.integers(-3, 3))
def test_swapping_a_pair_swaps_the_question_and_the_truth(
    a: str, b: str, preferred: str, strength: int
) -> None:
    task = PairwiseTask()
    one = pair(response_a=a, response_b=b, preferred=preferred, strength=strength)
    other = one.swap()
    assert other.swap() == one
    assert task.prompt(other.to_row()) == task.prompt(
        pair(response_a=b, response_b=a, preferred="tie").to_row()
    )
    assert task.cluster(other.to_row()) == task.cluster(one.to_row())
    assert task.truth(other.to_row()) == {"A": "B", "B": "A", "tie": "tie"}[task.truth(one.to_row())]


def test_clusters_tell_conversations_apart() -> None:
    task = PointwiseTask()
    found = {
        task.cluster(sample(input=turns).to_row())
        for turns in (QUERY, QUERY[2:], (Message("user", "Hi\n\nHello."),), (Message("user", "\ud800"),))
    }
    assert len(found) == 4
    assert task.cluster(sample(response="other").to_row()) == task.cluster(sample().to_row())


def test_braces_in_a_response_stay() -> None:
    assert "{query} {0}" in PointwiseTask().prompt(sample(response="{query} {0}").to_row())


# -- tasks by name


def test_tasks_by_name() -> None:
    assert [get_task(name).name for name in task_names()] == ["pointwise", "pairwise", "multi_dimension"]
    with pytest.raises(ConfigError, match="Did you mean 'pointwise'"):
        get_task("pontwise")
    with pytest.raises(ConfigError, match="expected a Task"):
        get_task("math:pi")


OBJECT = PointwiseTask(RewardConfig(k=3))


def test_a_task_object_keeps_its_settings_and_refuses_others() -> None:
    here = f"{__name__}:OBJECT"
    assert get_task(here) is get_task(here, RewardConfig(k=3), think=False, instruction=None) is OBJECT
    with pytest.raises(ConfigError, match="with its own reward, think"):
        get_task(here, RewardConfig(k=1), think=True)
    assert get_task("rm_gallery.core.tasks:PairwiseTask", think=True).think


@pytest.mark.parametrize(("task", "reward"), [("pairwise", "exp_decay"), ("pointwise", "preference")])
def test_a_reward_that_cannot_score_the_verdicts_is_refused(task: str, reward: str) -> None:
    with pytest.raises(ConfigError, match=f"{reward}.*cannot score"):
        get_task(task, RewardConfig(name=reward))


def test_weights_are_checked() -> None:
    with pytest.raises(DataError, match="weights"):
        MultiDimensionTask(weights={"helpfulness": 1})


def test_a_label_that_is_not_there_is_named_with_those_that_are():
    row = sample(labels={"helpfulnes": 3}).to_row()
    for task in (PointwiseTask(), MultiDimensionTask(dimensions={"helpfulness": 1})):
        with pytest.raises(DataError, match=r"no label 'helpfulness', only helpfulnes\. Did you mean"):
            task.truth(row)
    with pytest.raises(DataError, match="a pair of responses, for the task pairwise"):
        PointwiseTask().truth(pair().to_row())


def test_a_column_of_nulls_does_not_hide_the_labels():
    """As in a table of rows of two shapes."""
    row = {**sample().to_row(), **dict.fromkeys(LABELS)}
    assert MultiDimensionTask().truth(row) == MultiDimensionTask().truth(sample().to_row())
