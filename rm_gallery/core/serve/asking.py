"""From what is asked to the questions that the model is given, and from its answers back to results.

Each of `plan_…` gives the conversations to ask about and a function from their answers to the results. An item that
cannot be asked about has a result with its problem, and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Generic, TypeVar

from rm_gallery.core.data.samples import Message, Pair, Preferred, Sample
from rm_gallery.core.errors import DataError
from rm_gallery.core.judge.answer import FAILED, Answer, Conversation
from rm_gallery.core.judge.fields import answer_fields, pair_fields
from rm_gallery.core.judge.orders import LABELS
from rm_gallery.core.serve.schemas import (
    CompareItem,
    Comparison,
    Ranked,
    Ranking,
    RankItem,
    Score,
    ScoreItem,
    Scores,
)
from rm_gallery.core.tasks.base import Task

T = TypeVar("T")
Turns = tuple[Message, ...]


@dataclass(frozen=True)
class Plan(Generic[T]):
    """What to ask, and what the answers come to."""

    conversations: list[Conversation]
    results: Callable[[Sequence[Answer]], list[T]]


class _Asked:
    """Gathers conversations; `add` gives where an answer will be found, or the answer to what cannot be asked."""

    def __init__(self, task: Task[Any] | None) -> None:
        self.task = task
        self.conversations: list[Conversation] = []

    def add(self, row: Sample | Pair) -> Callable[[Sequence[Answer]], Answer]:
        try:
            asked = _conversation(self.task, row)
        except DataError as error:
            problem = Answer(problem=f"{FAILED}: {error}")
            return lambda answers: problem
        position = len(self.conversations)
        self.conversations.append(asked)
        return lambda answers: answers[position]


def plan_scores(items: Sequence[ScoreItem], task: Task[Any] | None) -> Plan[Score]:
    """One question an item, for a judge of single responses or a scalar model (`task` None)."""
    asked = _Asked(task)
    places = [asked.add(Sample(item.turns(), item.response, {})) for item in items]
    return Plan(asked.conversations, lambda answers: [scored(place(answers), task) for place in places])


def plan_comparisons(items: Sequence[CompareItem], task: Task[Any] | None) -> Plan[Comparison]:
    """Both orders of each pair, of a judge that scores both responses."""
    asked = _Asked(task)
    if task is not None and task.responses == 2:
        pairs = [_add_pair(asked, item.turns(), item.response_a, item.response_b) for item in items]
        return Plan(
            asked.conversations,
            lambda answers: [_compared(first(answers), second(answers), task) for first, second in pairs],
        )
    both = [
        [asked.add(Sample(item.turns(), response, {})) for response in (item.response_a, item.response_b)]
        for item in items
    ]
    return Plan(
        asked.conversations,
        lambda answers: [_by_scores(*(scored(place(answers), task) for place in places)) for places in both],
    )


def plan_rankings(items: Sequence[RankItem], task: Task[Any] | None) -> Plan[Ranking]:
    """Each response once, or each pair of them in both orders."""
    asked = _Asked(task)
    if task is not None and task.responses == 2:
        games = [
            {
                (i, j): _add_pair(asked, item.turns(), item.responses[i], item.responses[j])
                for i, j in combinations(range(len(item.responses)), 2)
            }
            for item in items
        ]

        def tables(answers: Sequence[Answer]) -> list[Ranking]:
            played = (
                {
                    pair: _compared(first(answers), second(answers), task)
                    for pair, (first, second) in g.items()
                }
                for g in games
            )
            return [_table(len(item.responses), results) for item, results in zip(items, played, strict=True)]

        return Plan(asked.conversations, tables)
    each = [[asked.add(Sample(item.turns(), response, {})) for response in item.responses] for item in items]

    def rankings(answers: Sequence[Answer]) -> list[Ranking]:
        return [_ranking([scored(place(answers), task) for place in places]) for places in each]

    return Plan(asked.conversations, rankings)


def scored(answer: Answer, task: Task[Any] | None) -> Score:
    """An answer about one response."""
    score, problem = answer.value(task), answer.problem
    if not problem and task is not None and score is None:
        problem = f"{FAILED}: a verdict of the task {task.name} is no number"
    return Score(score=score, **{**answer_fields(answer, task), "problem": problem})


def ranks(values: Sequence[float | None]) -> list[int | None]:
    """1 for the largest; equal ones share the best of their places; None of None."""
    return [
        None if value is None else 1 + sum(other is not None and other > value for other in values)
        for value in values
    ]


# -- the questions


def _conversation(task: Task[Any] | None, row: Sample | Pair) -> Conversation:
    if not row.input or not row.input[-1].content.strip():
        raise DataError("the query is empty")
    asked = row.to_row()
    if task is not None:
        return task.messages(asked)
    return [*asked["input"], {"role": "assistant", "content": asked["output"]["content"]}]


def _add_pair(
    asked: _Asked, turns: Turns, a: str, b: str
) -> tuple[Callable[[Sequence[Answer]], Answer], Callable[[Sequence[Answer]], Answer]]:
    pair = Pair(turns, a, b, "tie")
    return asked.add(pair), asked.add(pair.swap())


# -- the results


def _compared(forward: Answer, swapped: Answer, task: Task[Any]) -> Comparison:
    return Comparison(scores=None, **pair_fields(forward, swapped, task))


def _by_scores(a: Score, b: Score) -> Comparison:
    verdict: Preferred | None = None
    if a.score is not None and b.score is not None:
        verdict = "tie" if a.score == b.score else "A" if a.score > b.score else "B"
    return Comparison(
        verdict=verdict,
        probabilities=None,
        consistent=None,
        orders=None,
        scores=Scores(a=a, b=b),
        problem=a.problem or b.problem,
    )


def _ranking(scores: Sequence[Score]) -> Ranking:
    places = ranks([score.score for score in scores])
    return Ranking(
        responses=[
            Ranked(rank=place, score=s.score, wins=None, ties=None, comparisons=None, problem=s.problem)
            for place, s in zip(places, scores, strict=True)
        ]
    )


def _table(size: int, games: Mapping[tuple[int, int], Comparison]) -> Ranking:
    """Wins and ties of each response, ranked by their share of the comparisons that have a verdict."""
    found: list[list[str]] = [[] for _ in range(size)]
    problems: list[list[str]] = [[] for _ in range(size)]
    for (i, j), game in games.items():
        for one, won in ((i, "A"), (j, "B")):
            if game.verdict is None:
                problems[one].append(game.problem)
            else:
                found[one].append(
                    "tie" if game.verdict == LABELS[2] else "win" if game.verdict == won else "loss"
                )
    shares = [(own.count("win") + own.count("tie") / 2) / len(own) if own else None for own in found]
    return Ranking(
        responses=[
            Ranked(
                rank=place,
                score=share,
                wins=own.count("win"),
                ties=own.count("tie"),
                comparisons=len(own),
                problem=_missing(failed, size - 1),
            )
            for place, share, own, failed in zip(ranks(shares), shares, found, problems, strict=True)
        ]
    )


def _missing(problems: Sequence[str], comparisons: int) -> str:
    """In a sentence that begins with the kind of the first problem."""
    if not comparisons:
        return f"{FAILED}: there is no other response to compare with"
    if not problems:
        return ""
    kind, _, said = problems[0].partition(": ")
    return f"{kind}: {len(problems)} of {comparisons} comparisons have no verdict, the first because {said}"
