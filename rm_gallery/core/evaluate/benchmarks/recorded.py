"""Recorded verdicts in place of a model: files of answers that were given elsewhere, or by an earlier run.

Three formats, told apart by what is in them:

- JSON Lines of this project, a line a verdict, or a line an item with a number for each response (of
  `{"unique_id": …, "order": "forward", "verdict": "A"}` A is the response that was shown first):

      {"unique_id": "17", "order": "swapped", "verdict": "tie"}
      {"unique_id": "17", "scores": [0.3, -1.2]}

- the output of JudgeBench's run_judge.py: `pair_id` and `judgments`, of which each has a `decision`;
- `predictions.parquet` of an evaluation on the benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.ask import Questions, questions
from rm_gallery.core.evaluate.benchmarks.base import Item
from rm_gallery.core.evaluate.benchmarks.reading import Row, located, one_of, read_rows
from rm_gallery.core.judge.answer import FAILED, UNPARSABLE, Answer
from rm_gallery.core.judge.orders import ORDERS, Order

Key = tuple[str, int, Order | None]
_VERDICTS = {"A": "A", "B": "B", "tie": "tie", "a": "A", "b": "B", "Tie": "tie", "TIE": "tie", None: None}
_ORDER: dict[Any, Order] = {order: order for order in ORDERS}
# anything else that a judge of JudgeBench decided is neither right nor wrong to the published scorer
_DECISIONS = {"A>B": "A", "B>A": "B", "A=B": "tie"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """Recorded answers to a benchmark's questions, as a judge would have given them: `judged` takes both.

    Attributes:
        questions: what the file answers: responses, or comparisons in the orders that it has.
        answers: one a question; one that the file lacks has a `problem` that begins with `failed`.
        notes: sentences on what is missing and what is left out.
    """

    questions: Questions
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]


def read_recorded(items: Sequence[Item], path: Path) -> Recorded:
    """The recorded answers to the questions about `items`.

    Raises:
        DataError: the file is damaged or of no known format, answers a question twice, or answers none of these.
    """
    given: dict[Key, Answer] = {}
    for key, answer, where in _parquet(items, path) if path.suffix == ".parquet" else _lines(path):
        if key in given:
            raise DataError(f"{where}: a second answer about {key[0]!r}{f' ({key[2]})' if key[2] else ''}")
        given[key] = answer
    kinds = {key[2] is None for key in given}
    if len(kinds) > 1:
        raise DataError(f"{path} holds numbers for responses and verdicts on comparisons; give one kind")
    orders = [order for order in ORDERS if any(key[2] == order for key in given)]
    asked = questions(items, 1) if kinds == {True} else questions(items, 2, orders)
    answers = [given.get((q.item, q.index, q.order)) for q in asked.asked]
    if not any(answers):
        example = next(iter(given), ("nothing",))[0]
        raise DataError(
            f"{path} answers no question of this benchmark: its ids, as {example!r}, are not the benchmark's, as "
            f"{items[0].unique_id!r}"
        )
    absent = Answer(problem=f"{FAILED}: not in {path.name}")
    return Recorded(
        asked,
        tuple(answer or absent for answer in answers),
        tuple(_notes(items, asked, answers, given, path, orders)),
    )


def _notes(
    items: Sequence[Item],
    asked: Questions,
    answers: Sequence[Answer | None],
    given: Mapping[Key, Answer],
    path: Path,
    orders: Sequence[Order],
) -> Iterator[str]:
    missing = [q.item for q, answer in zip(asked.asked, answers, strict=True) if answer is None]
    if missing:
        yield (
            f"{len(missing)} of {len(answers)} answers are not in {path.name}, the first about {missing[0]!r}: they "
            "count as invalid."
        )
    sizes = {
        item.unique_id: len(item.responses if asked.responses == 1 else item.comparisons) for item in items
    }
    other = [key[0] for key in given if not 0 <= key[1] < sizes.get(key[0], 0)]
    if other:
        yield (
            f"{len(other)} answers in {path.name} are about nothing in the benchmark, the first about {other[0]!r}: "
            "they are left out."
        )
    if len(orders) == 1:
        yield f"{path.name} holds one order of each pair: what the other order would show is undefined."


# -- lines


def _lines(path: Path) -> Iterator[tuple[Key, Answer, object]]:
    for row, place in read_rows(path):
        with located(place):
            found = list(_judgebench(row) if "judgments" in row else _own(row))
        for key, answer in found:
            yield key, answer, place


def _own(row: Row) -> Iterator[tuple[Key, Answer]]:
    if not isinstance(row.get("unique_id"), str | int):
        raise BadRow("unique_id is missing")
    name = str(row["unique_id"])
    if ("scores" in row) == ("verdict" in row):
        raise BadRow("exactly one of verdict and scores is needed")
    if "scores" in row:
        numbers = row["scores"]
        if not isinstance(numbers, list) or not all(n is None or _is_number(n) for n in numbers):
            raise BadRow("scores is not a list of numbers, one a response, null where there is none", numbers)
        for index, number in enumerate(numbers):
            yield (name, index, None), _scored(number)
        return
    index = row.get("comparison", 0)
    if not isinstance(index, int) or isinstance(index, bool):
        raise BadRow("comparison is not the position of a comparison in the item", index)
    key = (name, index, one_of(row, "order", _ORDER))
    yield key, _compared(one_of(row, "verdict", _VERDICTS), str(row.get("text") or ""))


def _judgebench(row: Row) -> Iterator[tuple[Key, Answer]]:
    name, judgments = row.get("pair_id"), row.get("judgments")
    if not isinstance(name, str):
        raise BadRow("pair_id is missing")
    if not isinstance(judgments, list) or not 1 <= len(judgments) <= 2:
        raise BadRow("judgments is not a list of one judgment, or of one for each order", judgments)
    for order, judgment in zip(ORDERS, judgments, strict=False):
        if judgment is None:
            yield (name, 0, order), Answer(problem=f"{FAILED}: no judgment was recorded")
            continue
        if not isinstance(judgment, dict):
            raise BadRow("a judgment is neither an object nor null", judgment)
        written = judgment.get("judgment")
        text = written.get("response") if isinstance(written, dict) else None
        verdict = _DECISIONS.get(str(judgment.get("decision")))
        yield (name, 0, order), _compared(verdict, text if isinstance(text, str) else "")


def _compared(verdict: str | None, text: str) -> Answer:
    problem = "" if verdict is not None else f"{UNPARSABLE}: no verdict was recorded"
    return Answer(verdict=verdict, text=text, problem=problem)


def _scored(number: float | None, text: str = "") -> Answer:
    if number is None:
        return Answer(text=text, problem=f"{UNPARSABLE}: no number was recorded")
    return Answer(score=float(number), text=text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


# -- predictions


def _parquet(items: Sequence[Item], path: Path) -> Iterator[tuple[Key, Answer, object]]:
    """The rows of `predictions.parquet`, whose `unique_id` is the key of a question."""
    rows = [(row, place) for row, place in read_rows(path)]
    if rows and not {"unique_id", "predicted"} <= rows[0][0].keys():
        raise DataError(f"{path} is not a file of predictions: it has no columns unique_id and predicted")
    by_key: dict[str, Key] = {
        q.key: (q.item, q.index, q.order) for size in (1, 2) for q in questions(items, size).asked
    }
    for row, place in rows:
        key = by_key.get(str(row["unique_id"]), (str(row["unique_id"]), -1, _order(row)))
        with located(place):
            yield key, _predicted(row, key[2]), place


def _order(row: Row) -> Order | None:
    return _ORDER.get(row.get("order"))


def _predicted(row: Row, order: Order | None) -> Answer:
    text = str(row.get("text") or "")
    if order is None:
        value = row.get("value")
        number = value if value is not None else row["predicted"]
        if number is not None and not _is_number(number):
            raise BadRow("predicted is not a number", number)
        return _scored(number, text)
    verdict = one_of(row, "predicted", _VERDICTS)
    probabilities = row.get("probabilities")
    return Answer(
        verdict=verdict,
        text=text,
        problem="" if verdict is not None else str(row.get("problem") or UNPARSABLE),
        probabilities=None if probabilities is None else tuple(probabilities),
        mass=row.get("mass"),
    )
