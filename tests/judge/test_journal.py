"""Asking every question once: nothing twice, nothing lost, whatever stops it."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.judge.journal import Journal, ask_all
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Lengths:
    """Answers with the length of the question, four at a time, the longest first; can be killed."""

    def __init__(self, dies_after: int | None = None, fails: str | None = None) -> None:
        self.seen: list[str] = []
        self.dies_after = dies_after
        self.fails = fails

    def __call__(self, conversations, *, done):
        texts = [conversation[-1]["content"] for conversation in conversations]
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        answers = {}
        for start in range(0, len(order), 4):
            batch = order[start : start + 4]
            if self.dies_after is not None and len(self.seen) + len(batch) > self.dies_after:
                raise KeyboardInterrupt
            self.seen += [texts[i] for i in batch]
            now = {
                i: Answer(problem="failed: no route")
                if texts[i] == self.fails
                else Answer(len(texts[i]), texts[i])
                for i in batch
            }
            done(now)
            answers |= now
        return [answers[i] for i in range(len(texts))]


@given(st.lists(st.text(max_size=6), max_size=30))
def test_each_question_is_asked_once_and_answers_come_in_order(texts):
    judge, counted = Lengths(), []
    answers = ask_all(judge, [asked(text) for text in texts], progress=counted.append)
    assert [answer.text for answer in answers] == texts
    assert [answer.verdict for answer in answers] == [len(text) for text in texts]
    assert sorted(judge.seen) == sorted(set(texts))
    assert sum(counted) == len(texts)


answers = st.builds(
    Answer,
    verdict=st.none() | st.integers(0, 4) | st.sampled_from(["A", "B", "tie"]),
    text=st.text(),
    problem=st.sampled_from(["", "unparsable: no tag", "overlong: 9 tokens"]),
    probabilities=st.none() | st.lists(st.floats(0, 1), min_size=1, max_size=5).map(tuple),
    mass=st.none() | st.floats(0, 1),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(answers)
def test_an_answer_comes_back_from_its_line(answer):
    assert Answer.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer


def ask_journalled(ask, questions, path, **options):
    with closing(Journal(path)) as journal:
        return ask_all(ask, questions, journal=journal, **options)


def test_two_evaluations_do_not_write_to_one_journal(tmp_path):
    """They would ask everything twice, and mix their lines."""
    path = tmp_path / "out" / "judgments.jsonl"
    with closing(Journal(path)), pytest.raises(ConfigError, match="written by another run: wait"):
        Journal(path)
    Journal(path).delete()
    assert not path.exists()


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    texts = ["x" * i for i in range(20)]
    questions = [asked(text) for text in texts]
    path = tmp_path / "judgments.jsonl"
    first, second = Lengths(dies_after=9), Lengths()
    with pytest.raises(KeyboardInterrupt):
        ask_journalled(first, questions, path)
    assert len(first.seen) == 8
    path.write_text(path.read_text()[:-5])  # the last line was being written when the power failed
    counted = []
    found = ask_journalled(second, questions, path, progress=counted.append)
    assert len(second.seen) == 13
    assert sum(counted) == 20
    assert found == ask_all(Lengths(), questions)
    third = Lengths()
    assert ask_journalled(third, questions, path) == found
    assert third.seen == []


def test_what_failed_is_asked_again(tmp_path):
    questions = [asked("a"), asked("bb")]
    path = tmp_path / "judgments.jsonl"
    assert ask_journalled(Lengths(fails="bb"), questions, path)[1].problem == "failed: no route"
    again = Lengths()
    assert ask_journalled(again, questions, path)[1].verdict == 2
    assert again.seen == ["bb"]


def test_another_judge_is_asked_anew(tmp_path):
    path = tmp_path / "judgments.jsonl"
    ask_journalled(Lengths(), [asked("a")], path, identity="m")
    other = Lengths()
    ask_journalled(other, [asked("a")], path, identity="n")
    assert other.seen == ["a"]


def test_an_answer_of_several_dimensions_is_their_weighted_mean():
    """The task says what number a verdict is; ranking, graders and the service take it from there."""
    task = MultiDimensionTask(weights={"helpfulness": 2, "correctness": 1, "relevance": 1})
    verdict = {"helpfulness": 4, "correctness": 2, "relevance": 0}
    assert Answer(verdict).value(task) == 2.5
    even = tuple(1 / len(task.verdicts()) for _ in task.verdicts())
    assert Answer(verdict, probabilities=even).value(task) == pytest.approx(2.0)
    assert Answer("A").value(PairwiseTask()) is None
