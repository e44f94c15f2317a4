"""`Answer`: what a judge gave to one question, whichever way it was asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from rm_gallery.core.errors import InvalidVerdict, UnfinishedReasoning
from rm_gallery.core.tasks.base import Task

Mode = Literal["greedy", "expected", "vote"]
MODES: tuple[Mode, ...] = ("greedy", "expected", "vote")
Conversation = Sequence[dict[str, str]]

UNPARSABLE = "unparsable"
UNFINISHED = "unfinished"
OVERLONG = "overlong"
FAILED = "failed"
"""The first word of an answer's `problem`, by which such answers are counted. `unfinished`: its reasoning was cut off."""
DIGITS = 9
"""Of means and sums of probabilities: those that are equal in exact numbers are then equal, and a tie."""
MOST_VERDICTS: dict[Mode, int] = {"expected": 1000, "vote": 5000}
"""Of several dimensions all combinations are verdicts: so many can be weighed, or counted, for each question."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One judge's answer to one question.

    Attributes:
        verdict: a legal verdict of the task, or None. In mode `expected` the most probable one, in mode `vote` the
            most frequent one; a draw goes to the one that stands first on the task's scale.
        text: what was written (of a vote, its samples joined by a line of dashes); "" where nothing was.
        problem: why there is no verdict, beginning with `unparsable`, `unfinished`, `overlong` or `failed`; else "".
        probabilities: over the task's `verdicts()`, in their order, summing to 1: of mode `expected` exact, of `vote`
            the shares of the legal samples; else None.
        mass: the probability of all legal verdicts together (`expected`), or the share of samples that were legal
            (`vote`), in [0, 1]; else None.
        score: a scalar model's own number; else None.
    """

    verdict: Any = None
    text: str = ""
    problem: str = ""
    probabilities: tuple[float, ...] | None = None
    mass: float | None = None
    score: float | None = None

    def value(self, task: Task[Any] | None) -> float | None:
        """The answer as one number by which responses are ranked, None where there is none.

        A scalar model's score; the mean of the distribution; else the verdict, both as the task's numbers.
        """
        if self.score is not None or self.verdict is None:
            return self.score
        if task is None:
            return float(self.verdict)
        if self.probabilities is None:
            return task.number(self.verdict)
        numbers = [task.number(verdict) for verdict in task.verdicts()]
        known = [number for number in numbers if number is not None]
        if len(known) < len(numbers):
            return None
        return round(
            math.fsum(p * number for p, number in zip(self.probabilities, known, strict=True)), DIGITS
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without what is not there; `from_dict` gives the same answer back."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Answer:
        """Raises `TypeError` where the fields are not those of `to_dict`."""
        given = dict(fields)
        if "probabilities" in given:
            given["probabilities"] = tuple(given["probabilities"])
        return cls(**given)


def problem_of(error: InvalidVerdict) -> str:
    """An answer's `problem` where its text holds no legal verdict."""
    return f"{UNFINISHED if isinstance(error, UnfinishedReasoning) else UNPARSABLE}: {error}"


def too_many(task: Task[Any], mode: Mode) -> str:
    """Why a task has too many verdicts for a mode, "" where it has not."""
    most, count = MOST_VERDICTS.get(mode), len(task.verdicts())
    if most is None or count <= most:
        return ""
    return (
        f"the {len(task.parts) or 1} dimensions of this judge have {count:,} combinations of scores, and mode {mode} "
        f"takes at most {most:,}: use {'vote, or ' if mode == 'expected' and count <= MOST_VERDICTS['vote'] else ''}greedy"
    )


def reasons(task: Task[Any], judge: Any) -> bool:
    """Whether a judge reasons before its verdict: asked to, by itself, or because its chat template begins so."""
    return task.think or bool(getattr(judge, "reasoning_model", False) or getattr(judge, "opening", ""))


def weighs(task: Task[Any], judge: Any) -> bool:
    """Whether the distribution over the verdicts can be had from this judge."""
    return "expected" in judge.modes and not reasons(task, judge) and not too_many(task, "expected")


class Judge(Protocol):
    """Whatever answers a task's questions: a model in this process, an endpoint, a scalar head.

    Attributes:
        modes: how it can be asked.
        fingerprint: tells it from another judge; part of a journal's keys.
    """

    modes: tuple[Mode, ...]
    fingerprint: str

    def answer(
        self,
        task: Task[Any],
        conversations: Sequence[Conversation],
        *,
        mode: Mode,
        max_new_tokens: int,
        samples: int = 8,
        seed: int = 0,
        done: Callable[[dict[int, Answer]], None] = lambda _: None,
    ) -> list[Answer]:
        """Answer every conversation, in order; a question that cannot be answered has a `problem`, and none raises.

        Args:
            task: parses, and lists the legal verdicts.
            max_new_tokens: where a written answer is cut off.
            samples: of a vote.
            seed: of a vote's sampling.
            done: is given the answers of each batch by their position, as soon as it is answered.
        """
        ...


class Scorer(Protocol):
    """A model with one number for a response: a Bradley-Terry head or another sequence classifier."""

    fingerprint: str

    def score(
        self,
        conversations: Sequence[Conversation],
        *,
        done: Callable[[dict[int, Answer]], None] = lambda _: None,
    ) -> list[Answer]:
        """Score conversations whose last turn is the assistant's response; `Answer.score` or a `problem`."""
        ...
