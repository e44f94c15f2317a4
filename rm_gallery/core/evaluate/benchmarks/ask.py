"""From a benchmark's items to the questions a judge is asked, and from its answers back to outcomes.

A model that scores is asked about each response once, whatever the comparisons; a judge that compares is asked about
every comparison in both orders. What follows never asks again who answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rm_gallery.core.data.samples import Pair, Preferred, Sample
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate.benchmarks.base import Comparison, Item, Judged
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.judge.orders import LABELS, ORDERS, Order, Outcome, outcome
from rm_gallery.core.tasks.base import Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """One question about an item.

    Attributes:
        item: the item's `unique_id`.
        index: the position of the response, or of the comparison, in the item.
        order: of a comparison, whether `first` or `second` is shown first; None of a response.
        row: as tasks take it; its `unique_id` is the question's `key`. A pair's `preferred` is the truth as shown.
    """

    item: str
    index: int
    order: Order | None
    row: Mapping[str, Any]

    @property
    def key(self) -> str:
        return question_key(self.item, self.index, self.order)


@dataclass(frozen=True, slots=True)
class Questions:
    """All that is asked about a benchmark, in the order of its items.

    Attributes:
        responses: how many each question is about: 1 for a model that scores, 2 for one that compares.
        asked: the questions.
    """

    responses: int
    asked: tuple[Question, ...]

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """One row a question, in order."""
        return [question.row for question in self.asked]

    def conversations(self, task: Task[Any] | None) -> list[list[dict[str, str]]]:
        """What is put to the judge: the task's prompts; without a task, the conversations that a scorer scores."""
        if task is not None:
            return [task.messages(row) for row in self.rows]
        return [
            [*row["input"], {"role": "assistant", "content": row["output"]["content"]}] for row in self.rows
        ]


def question_key(item: str, index: int, order: Order | None) -> str:
    """How a question is named in files: `ITEM#RESPONSE`, or `ITEM#COMPARISON-ORDER`."""
    return f"{item}#{index}" if order is None else f"{item}#{index}-{order}"


def questions(items: Sequence[Item], responses: int, orders: Sequence[Order] = ORDERS) -> Questions:
    """The questions about `items` for a judge of so many responses at a time (`Task.responses`; a scorer: 1).

    Raises:
        ConfigError: `responses` is neither 1 nor 2.
    """
    if responses not in (1, 2):
        raise ConfigError(f"benchmarks are judged one or two responses at a time, not {responses}")
    asked: list[Question] = []
    for item in items:
        if responses == 1:
            asked += [_about_response(item, index) for index in sorted(set(_distinct(item)))]
        else:
            asked += [_about_pair(item, i, order) for i in range(len(item.comparisons)) for order in orders]
    return Questions(responses, tuple(asked))


def judged(
    items: Sequence[Item], questions: Questions, answers: Sequence[Answer], task: Task[Any] | None
) -> list[Judged]:
    """What the answers say about each item.

    Args:
        items: those that the questions are about.
        questions: as `questions(items, …)` made them.
        answers: one a question, in order.
        task: what was asked; None for a scalar model.

    Raises:
        DataError: there are not as many answers as questions, or the questions are about other items.
    """
    if len(answers) != len(questions.asked):
        raise DataError(f"{len(questions.asked)} questions and {len(answers)} answers: each needs one")
    found = {
        (question.item, question.index, question.order): answer
        for question, answer in zip(questions.asked, answers, strict=True)
    }
    try:
        if questions.responses == 1:
            return [
                scored(item, [found[item.unique_id, index, None].value(task) for index in _distinct(item)])
                for item in items
            ]
        labels = LABELS if task is None else tuple(task.verdicts())
        return [_compared(item, found, labels) for item in items]
    except KeyError as error:
        raise DataError(
            f"no question is about {error.args[0]}: the questions belong to other items"
        ) from None


def scored(item: Item, values: Sequence[float | None]) -> Judged:
    """What a model that gives each response a number (or None) says about an item: equal numbers are a tie."""
    outcomes = []
    for comparison in item.comparisons:
        first, second = values[comparison.first], values[comparison.second]
        opinion: Preferred | None = None
        if first is not None and second is not None:
            opinion = "tie" if first == second else "A" if first > second else "B"
        outcomes.append(Outcome(opinion, opinion, opinion))
    return Judged(tuple(outcomes), tuple(values))


def _compared(
    item: Item, found: Mapping[tuple[str, int, Order | None], Answer], labels: Sequence[Any]
) -> Judged:
    name, size = item.unique_id, len(item.comparisons)
    if any((name, i, "swapped") in found and (name, i, "forward") not in found for i in range(size)):
        raise DataError(f"{name}: only the order `swapped` is there; of one order, call it forward")
    if size and all((name, i, "swapped") not in found for i in range(size)):
        shown = [found[name, i, "forward"].verdict for i in range(size)]
        return Judged(tuple(Outcome(verdict, None, verdict) for verdict in shown), one_order=True)
    return Judged(
        tuple(outcome(found[name, i, "forward"], found[name, i, "swapped"], labels) for i in range(size))
    )


def _distinct(item: Item) -> list[int]:
    """For each response the position of the first with the same text, which is asked about for both."""
    return [item.responses.index(response) for response in item.responses]


def _about_response(item: Item, index: int) -> Question:
    key = question_key(item.unique_id, index, None)
    sample = Sample(item.input, item.responses[index], {}, key)
    return Question(item.unique_id, index, None, sample.to_row())


def _about_pair(item: Item, index: int, order: Order) -> Question:
    key = question_key(item.unique_id, index, order)
    comparison: Comparison = item.comparisons[index]
    pair = Pair(
        item.input,
        item.responses[comparison.first],
        item.responses[comparison.second],
        comparison.truth,
        {"A": -1, "B": 1, "tie": 0}[comparison.truth],
        key,
        metadata={"group": f"{item.unique_id}#{index}", "order": order},
    )
    shown = pair if order == "forward" else pair.swap()
    return Question(item.unique_id, index, order, shown.to_row())
