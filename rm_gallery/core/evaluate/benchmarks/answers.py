"""`predictions.parquet` of an evaluation on a benchmark: one line a question, which `read_recorded` reads back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rm_gallery.core.data.samples import Pair, Sample, conversation_text
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.ask import Question, Questions, question_key
from rm_gallery.core.evaluate.benchmarks.base import Item
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.judge.orders import LABELS
from rm_gallery.core.tasks.base import Task


def write_answers(
    path: str | os.PathLike[str],
    items: Sequence[Item],
    questions: Questions,
    answers: Sequence[Answer],
    task: Task[Any] | None,
) -> None:
    """Write the answers; the same ones give the same bytes. Never leaves a half-written file.

    Columns: `unique_id` (the question's key), `item`, `cluster`, `order` (of a pair; else ""), `truth` (of a pair, as
    shown; else null), `better_than` (of a response, the `unique_id`s of those that it is labelled better than; of a
    pair null), `predicted` (the verdict; of a scalar model null), `value` (the number by which a response is ranked;
    of a pair null), `problem`, `probabilities` (of a pair over A, B and tie), `mass`, `text`, `query`, `response`,
    `response_b`.

    Raises:
        DataError: there are not as many answers as questions.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(answers) != len(questions.asked):
        raise DataError(f"{len(questions.asked)} questions and {len(answers)} answers: each needs one")
    cluster = {item.unique_id: item.cluster for item in items}
    pairs = questions.responses == 2
    schema = pa.schema(
        [(name, pa.string()) for name in ("unique_id", "item", "cluster", "order", "truth")]
        + [("better_than", pa.list_(pa.string()))]
        + [("predicted", pa.string() if pairs else pa.float64()), ("value", pa.float64())]
        + [("problem", pa.string()), ("probabilities", pa.list_(pa.float64())), ("mass", pa.float64())]
        + [(name, pa.string()) for name in ("text", "query", "response", "response_b")]
    )
    worse = {} if pairs else _better_than(items)
    rows = [
        _line(question, answer, task)
        | {"cluster": cluster[question.item], "better_than": worse.get(question.key)}
        for question, answer in zip(questions.asked, answers, strict=True)
    ]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
    temporary.replace(target)


def _better_than(items: Sequence[Item]) -> dict[str, list[str]]:
    """The key of each response → the keys of those to which the item's comparisons prefer it; ties are none."""
    found: dict[str, list[str]] = {}
    for item in items:
        # responses with the same text are asked about as one
        keys = [question_key(item.unique_id, item.responses.index(text), None) for text in item.responses]
        found.update((key, []) for key in keys)
        for comparison in item.comparisons:
            pair = (keys[comparison.first], keys[comparison.second])
            better, worse = pair if comparison.truth == "A" else pair[::-1]
            if comparison.truth != "tie" and worse not in (better, *found[better]):
                found[better].append(worse)
    return found


def _line(question: Question, answer: Answer, task: Task[Any] | None) -> dict[str, Any]:
    line = {
        "unique_id": question.key,
        "item": question.item,
        "order": question.order or "",
        "problem": answer.problem,
        "probabilities": answer.probabilities,
        "mass": answer.mass,
        "text": answer.text,
    }
    if question.order is None:
        sample = Sample.from_row(question.row)
        number = None
        if answer.verdict is not None:
            number = float(answer.verdict) if task is None else task.number(answer.verdict)
        return line | {
            "truth": None,
            "predicted": number,
            "value": answer.value(task),
            "query": conversation_text(sample.input),
            "response": sample.response,
            "response_b": "",
        }
    pair = Pair.from_row(question.row)
    return line | {
        "truth": pair.preferred,
        "predicted": answer.verdict,
        "probabilities": _over_labels(answer, task),
        "value": None,
        "query": conversation_text(pair.input),
        "response": pair.response_a,
        "response_b": pair.response_b,
    }


def _over_labels(answer: Answer, task: Task[Any] | None) -> list[float] | None:
    """The probabilities in the file's order, whatever the order of the task's verdicts."""
    if answer.probabilities is None:
        return None
    labels = LABELS if task is None else tuple(task.verdicts())
    known = dict(zip(labels, answer.probabilities, strict=True))
    return [known[label] for label in LABELS]
