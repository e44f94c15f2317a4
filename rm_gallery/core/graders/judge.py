"""Graders over a judge of a task: its own prompt and parser, and the distribution over its verdicts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders.base import BaseGrader, GraderMode
from rm_gallery.core.graders.fields import pair_row, response_row, texts
from rm_gallery.core.graders.result import GraderError, GraderRank, GraderResult, GraderScore
from rm_gallery.core.judge.answer import Answer, Mode
from rm_gallery.core.judge.chat import ChatJudge
from rm_gallery.core.judge.fields import answer_fields, pair_fields
from rm_gallery.core.judge.orders import LABELS
from rm_gallery.core.judge.read import DASHES, read
from rm_gallery.core.models.openai_chat import OpenAIChatModel
from rm_gallery.core.tasks.base import Task

NO_REASON = "The judge gives no reason."


class JudgeGrader(BaseGrader):
    """Scores one response by a judge that rates one response at a time.

    The score is the mean of the distribution over the verdicts (`mode="expected"`, or the shares of a vote), which
    tells apart responses that get the same verdict; of a written verdict (`greedy`), the verdict itself. It is on the
    task's scale. `metadata` holds `task`, `criterion`, `scale`, `mode` and the `answer_fields`: `verdict` (the most
    probable), of a distribution `probabilities` and `mass`, the probability of all legal verdicts together, and
    `problem`. Where the mass is small, the judge was about to write something else, and the score is of what it would
    hardly have written.

    Args:
        model: the judge.
        task: what it is asked; its own by default.
        name: by default the criterion.
        criterion: of a judge of several dimensions, the one that is the score; by default their weighted mean.
        mode: as of `ChatJudge`.

    Raises:
        ConfigError: the judge has no task, compares two responses, or its verdicts are no numbers.
    """

    def __init__(
        self,
        model: OpenAIChatModel,
        task: Task[Any] | None = None,
        *,
        name: str | None = None,
        criterion: str | None = None,
        mode: Mode | None = None,
    ) -> None:
        self.judge = ChatJudge(model, task, mode=mode)
        self.task = self.judge.task
        if self.task.responses != 1:
            raise ConfigError(
                f"{model.model} is a {self.task.name} judge, which compares two responses: use a pairwise grader"
            )
        self.criterion, self._numbers = _numbers(self.task, criterion)
        self.name = name or self.criterion
        self.scale = (min(self._numbers), max(self._numbers))
        # what a journal knows a grade by: another prompt or other verdicts are another question
        self.question = self.task.messages(response_row("query", "response"))
        self.answers = _formats(self.task)

    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        conversation = self.task.messages(response_row(fields["query"], fields["response"]))
        answer = await self.judge.aanswer(conversation)
        asked = {
            "task": self.task.name,
            "criterion": self.criterion,
            "scale": list(self.scale),
            "mode": self.judge.mode,
        }
        said = {**asked, **answer_fields(answer, self.task)}
        if answer.verdict is None:
            return _unanswered(self.name, answer, said)
        if answer.probabilities is None:
            score = self._numbers[list(self.task.verdicts()).index(answer.verdict)]
        else:
            score = sum(p * number for p, number in zip(answer.probabilities, self._numbers, strict=True))
        return GraderScore(self.name, score, reason(self.task, answer), said)


class PairJudgeGrader(BaseGrader):
    """Ranks two responses by a judge that compares them, shown in both orders.

    The better one is that of the two distributions' mean; of written verdicts, the one that both orders prefer, or
    that one prefers where the other says tie. Where they contradict each other it is a tie, and both have rank 1.
    `metadata` holds `task`, `mode` and the `pair_fields`: `verdict` and `probabilities` of both orders together,
    `consistent` (both say the same), `problem` and, under `orders`, what the judge said in the `forward` and in the
    `swapped` one. `A` is the first of `responses` everywhere, whichever was shown first.

    Args:
        model, task, mode: as of `JudgeGrader`.
        name: by default the task's.

    Raises:
        ConfigError: the judge has no task, or it rates one response at a time.
    """

    mode: GraderMode = "listwise"
    required = ("query", "responses")
    both_orders = True

    def __init__(
        self,
        model: OpenAIChatModel,
        task: Task[Any] | None = None,
        *,
        name: str | None = None,
        mode: Mode | None = None,
    ) -> None:
        self.judge = ChatJudge(model, task, mode=mode)
        self.task = self.judge.task
        if self.task.responses != 2:
            raise ConfigError(
                f"{model.model} is a {self.task.name} judge, which rates one response: use a pointwise grader"
            )
        if set(self.task.verdicts()) != set(LABELS):
            raise ConfigError(f"the verdicts of the task {self.task.name} are not A, B and tie")
        self.name = name or self.task.name
        self.question = self.task.messages(pair_row("query", "first", "second"))  # as of `JudgeGrader`
        self.answers = _formats(self.task)

    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        query, shown = fields["query"], texts(fields["responses"], "responses")
        if len(shown) != 2:
            raise DataError(f"responses holds {len(shown)} texts; this judge compares two")
        rows = [pair_row(query, *shown), pair_row(query, *reversed(shown))]
        forward, swapped = await asyncio.gather(
            *(self.judge.aanswer(self.task.messages(row)) for row in rows)
        )
        said = {"task": self.task.name, "mode": self.judge.mode, **pair_fields(forward, swapped, self.task)}
        if said["verdict"] is None:
            return _unanswered(self.name, forward if forward.verdict is None else swapped, said)
        rank = {"A": (1, 2), "B": (2, 1), "tie": (1, 1)}[said["verdict"]]
        return GraderRank(self.name, rank, self._reason(forward, swapped), said)

    def _reason(self, forward: Answer, swapped: Answer) -> str:
        """Of both orders, since each speaks of A and B as it was shown them."""
        given = {"As given": reason(self.task, forward), "Swapped": reason(self.task, swapped)}
        written = [f"{order}: {said}" for order, said in given.items() if said != NO_REASON]
        return "\n\n".join(written) or NO_REASON


def reason(task: Task[Any], answer: Answer) -> str:
    """What the judge wrote beside its verdict (of a vote, in the first sample with that verdict); else `NO_REASON`."""
    fields = "|".join(map(re.escape, task.template.verdict_fields())) if hasattr(task, "template") else ""
    for text in answer.text.split(DASHES):
        if answer.mass is not None and read(task, text).verdict != answer.verdict:
            continue
        # a reasoning may name a tag without closing it
        thought, _, said = text.rpartition("</think>")
        rest = re.sub(rf"<({fields})>.*?</\1>", "", said, flags=re.DOTALL | re.IGNORECASE) if fields else ""
        rest = re.sub(
            r"</?think>", "", f"{thought}\n{rest}" if thought else rest, flags=re.IGNORECASE
        ).strip()
        if rest:
            return rest
    return NO_REASON


def _formats(task: Task[Any]) -> list[str]:
    return [task.format(verdict) for verdict in task.verdicts()]


def criterion_of(task: Task[Any]) -> str:
    """What a task's score is a score of."""
    return str(getattr(task, "label", task.name))


def _numbers(task: Task[Any], wanted: str | None) -> tuple[str, list[float]]:
    """(what the score is a score of, each verdict as a number)."""
    verdicts = list(task.verdicts())
    if isinstance(verdicts[0], Mapping):
        if wanted in verdicts[0]:
            return str(wanted), [float(verdict[wanted]) for verdict in verdicts]
        name = " and ".join(verdicts[0])
    else:
        name = criterion_of(task)
    numbers = [task.number(verdict) for verdict in verdicts]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        raise ConfigError(
            f"the verdicts of the task {task.name} are {verdicts[0]!r}, … and no numbers: it gives no score"
        )
    return name, known


def _unanswered(name: str, answer: Answer, asked: Mapping[str, Any]) -> GraderError:
    kind = answer.problem.partition(":")[0]
    written = {"text": answer.text} if answer.text else {}
    return GraderError(
        name, answer.problem or "the judge gave no verdict", {"kind": kind, **asked, **written}
    )
