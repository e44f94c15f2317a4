"""`Predictions`: everything one evaluation observed, row by row, in columns."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from rm_gallery.core.data.samples import Pair, Row, Sample, conversation_text, row_name
from rm_gallery.core.errors import ConfigError, DataError, InvalidVerdict
from rm_gallery.core.judge.answer import UNPARSABLE, Answer, problem_of
from rm_gallery.core.judge.marginals import Marginals
from rm_gallery.core.tasks import Task

Kind = Literal["pointwise", "pairwise", "dimensions"]
Verdict = int | str
_HEADER = ("kind", "labels", "parts")
_OF_PART = ("truth", "predicted", "reward", "probabilities")  # the columns in which parts differ
_LATER = ("problem", "probabilities", "mass")  # columns that older files lack


@dataclass(frozen=True)
class Part:
    """One of several dimensions: its weight in the whole, and its scores as pointwise predictions on the same rows."""

    name: str
    weight: float
    predictions: Predictions


@dataclass(frozen=True)
class Predictions:
    """What a judge (or a baseline) answered to N rows. Every column is a tuple of length N.

    Attributes:
        kind: `pointwise` (whole scores), `pairwise` (`A`, `B`, `tie`) or `dimensions` (several scores at once, whose
            truth and verdict here are texts, and whose probabilities are those of `parts`).
        labels: every legal verdict in the order of the scale; empty of several dimensions.
        unique_id: the row's name.
        cluster: the id of the row's prompt; rows that share it are resampled together.
        truth: the row's label.
        predicted: the verdict, or None where the output held no legal one.
        reward: what the output earned; an invalid one earned the task's `invalid_reward`.
        problem: why there is no verdict, beginning with `unparsable`, `unfinished`, `overlong` or
            `failed`; "" where there is one.
        probabilities: over `labels`, in their order, where the row was judged in a mode that gives them; else None.
        mass: the probability of all legal verdicts together where it is known; else None.
        text: the raw output.
        query: the conversation that was judged, as one text.
        response: the response that was judged; of a pair, the first.
        response_b: the second response of a pair, else "".
        words: length of `response` in words.
        words_b: length of `response_b` in words (0 where there is none).
        group: of a pair, the id shared with the same two responses in the other order; else "".
        order: of a pair, `forward` for the order met first in the file and `swapped` for the other; else "".
        parts: of several dimensions, each by itself.
    """

    kind: Kind
    labels: tuple[Verdict, ...]
    unique_id: tuple[str, ...]
    cluster: tuple[str, ...]
    truth: tuple[Verdict, ...]
    predicted: tuple[Verdict | None, ...]
    reward: tuple[float, ...]
    problem: tuple[str, ...]
    probabilities: tuple[tuple[float, ...] | None, ...]
    mass: tuple[float | None, ...]
    text: tuple[str, ...]
    query: tuple[str, ...]
    response: tuple[str, ...]
    response_b: tuple[str, ...]
    words: tuple[int, ...]
    words_b: tuple[int, ...]
    group: tuple[str, ...]
    order: tuple[str, ...]
    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, task: Task[Any], table: Mapping[str, Sequence[Any]]) -> Predictions:
        """The predictions of a task from its columns, in which truths and verdicts are as the task has them."""
        kind = task_kind(task)
        found = {name: tuple(table[name]) for name in columns()}
        if not task.parts:
            return cls(kind, tuple(task.verdicts()), **found)
        texts = {key: tuple(None if v is None else in_words(v) for v in found[key]) for key in _OF_PART[:2]}
        nothing = (None,) * len(found["truth"])
        common = {**found, **texts, "probabilities": nothing}
        marginals = Marginals([len(part.scale) for part in task.parts])
        of_parts = [None if p is None else marginals(p) for p in found["probabilities"]]
        parts = []
        for i, part in enumerate(task.parts):
            verdicts = zip(found["predicted"], found["truth"], table["data_source"], strict=True)
            invalid = task.reward_config.invalid_reward
            own = {
                "truth": [truth[part.name] for truth in found["truth"]],
                "predicted": [None if v is None else v[part.name] for v in found["predicted"]],
                "reward": [
                    float(invalid if v is None else part.reward(v[part.name], truth[part.name], source))
                    for v, truth, source in verdicts
                ],
                "probabilities": [None if p is None else p[i] for p in of_parts],
                "mass": nothing,  # is the whole's
            }
            alone = cls("pointwise", tuple(part.scale), **{**common, **{k: tuple(v) for k, v in own.items()}})
            parts.append(Part(part.name, part.weight, alone))
        return cls(kind, (), **common, parts=tuple(parts))

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in columns()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the columns of the predictions differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.unique_id)

    def take(self, indices: Sequence[int]) -> Predictions:
        """The rows at `indices`, in that order."""
        picked = {name: tuple(getattr(self, name)[i] for i in indices) for name in columns()}
        parts = tuple(replace(part, predictions=part.predictions.take(indices)) for part in self.parts)
        return Predictions(self.kind, self.labels, **picked, parts=parts)

    def aligned_to(self, other: Predictions) -> Predictions:
        """These rows in the order of `other`.

        Raises:
            DataError: the two do not hold the same rows with the same labels.
        """
        mine = self
        if self.unique_id != other.unique_id:
            position = {name: i for i, name in enumerate(self.unique_id)}
            if len(position) != len(self) or sorted(self.unique_id) != sorted(other.unique_id):
                raise DataError(
                    f"the two evaluations hold different rows ({len(self)} and {len(other)}, matched by "
                    "unique_id); a difference needs the same rows judged twice"
                )
            mine = self.take([position[name] for name in other.unique_id])
        if mine.truth != other.truth or mine.cluster != other.cluster:
            raise DataError("the two evaluations hold the same unique_ids with other labels or prompts")
        return mine

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns; the same predictions give the same bytes. Never leaves a half-written file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        verdict = pa.int64() if self.kind == "pointwise" else pa.string()
        types = {"truth": verdict, "predicted": verdict, "reward": pa.float64()}
        types |= {"words": pa.int64(), "words_b": pa.int64()}
        types |= {"probabilities": pa.list_(pa.float64()), "mass": pa.float64()}
        arrays = {name: pa.array(getattr(self, name), types.get(name, pa.string())) for name in columns()}
        header = {"rm_gallery.kind": self.kind, "rm_gallery.labels": " ".join(map(str, self.labels))}
        if self.parts:
            types |= {"truth": pa.int64(), "predicted": pa.int64()}
            header["rm_gallery.parts"] = json.dumps(
                [[part.name, part.weight, part.predictions.labels] for part in self.parts]
            )
        for part in self.parts:
            for name in _OF_PART:
                arrays[f"{name}.{part.name}"] = pa.array(getattr(part.predictions, name), types[name])
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        pq.write_table(pa.table(arrays).replace_schema_metadata(header), temporary)
        temporary.replace(target)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read what `to_parquet` wrote, also before there were distributions.

        Raises:
            DataError: the file is something else.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} cannot be read as Parquet: {error}") from error
        header = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        missing = [name for name in columns() if name not in (*table.column_names, *_LATER)]
        if missing or "rm_gallery.kind" not in header:
            raise DataError(f"{path} is not a file of predictions written by rmg eval (missing: {missing})")
        kind = header["rm_gallery.kind"]
        labels = header["rm_gallery.labels"].split()
        found: dict[str, Any] = {name: table.column(name).to_pylist() for name in table.column_names}
        for name in _LATER:  # such files hold written verdicts only
            found.setdefault(name, [None] * len(table))
        found["problem"] = [
            "" if verdict is not None else problem or UNPARSABLE
            for verdict, problem in zip(found["predicted"], found["problem"], strict=True)
        ]
        for name in found:
            if name.startswith("probabilities"):
                found[name] = [None if p is None else tuple(p) for p in found[name]]
        common = {name: tuple(found[name]) for name in columns()}
        parts = []
        for name, weight, scale in json.loads(header.get("rm_gallery.parts", "[]")):
            own = {key: tuple(found[f"{key}.{name}"]) for key in _OF_PART}
            own["mass"] = (None,) * len(table)
            parts.append(Part(name, weight, cls("pointwise", tuple(scale), **{**common, **own})))
        return cls(
            kind=kind if kind in ("pointwise", "dimensions") else "pairwise",
            labels=tuple(int(label) if kind == "pointwise" else label for label in labels),
            **common,
            parts=tuple(parts),
        )


def columns() -> tuple[str, ...]:
    """The names of the columns of `Predictions`."""
    return tuple(field.name for field in fields(Predictions) if field.name not in _HEADER)


def task_kind(task: Task[Any]) -> Kind:
    """Which set of metrics a task's verdicts call for.

    Raises:
        ConfigError: its verdicts are neither whole scores nor preferences.
    """
    if task.parts:
        return "dimensions"
    labels = tuple(task.verdicts())
    if all(isinstance(label, int) for label in labels):
        return "pointwise"
    if sorted(map(str, labels)) == ["A", "B", "tie"]:
        return "pairwise"
    raise ConfigError(
        f"the task {task.name!r} gives verdicts such as {labels[0]!r}; evaluation measures whole scores and the "
        "preferences A, B and tie"
    )


def in_words(verdict: Any) -> str:
    """A verdict for readers: `3`, `A`, or `helpfulness 3, correctness 4`."""
    if isinstance(verdict, Mapping):
        return ", ".join(f"{name} {score}" for name, score in verdict.items())
    return str(verdict)


def score_outputs(task: Task[Any], rows: Sequence[Row], answers: Sequence[str | Answer]) -> Predictions:
    """Read and reward a judge's answers with the task's own parser and reward.

    Args:
        task: what was asked.
        rows: N labelled rows.
        answers: the N answers, in the same order. A text is parsed; an `Answer` brings its verdict.

    Raises:
        DataError: a label is missing or bad, or a distribution is not one over the task's verdicts (names the row),
            or the lengths differ. An answer without a legal verdict is not an error: `predicted` is None.
    """
    if len(rows) != len(answers):
        raise DataError(f"{len(rows)} rows and {len(answers)} outputs: each row needs exactly one output")
    kind, labels = task_kind(task), task.verdicts()
    table: dict[str, list[Any]] = {name: [] for name in (*columns(), "data_source")}
    first_order: dict[str, str] = {}
    for row, given in zip(rows, answers, strict=True):
        truth = task.truth(row)
        answer = _parse(task, given) if isinstance(given, str) else given
        _check(answer, labels, row)
        known = answer.verdict is not None
        values: dict[str, Any] = {
            "unique_id": row_name(row),
            "cluster": task.cluster(row),
            "truth": truth,
            "predicted": answer.verdict,
            "reward": _reward(task, answer, truth, data_source(row)),
            "data_source": data_source(row),
            "problem": "" if known else answer.problem or UNPARSABLE,
            "probabilities": answer.probabilities,
            "mass": answer.mass,
            "text": answer.text,
            **_content(row, kind, first_order),
        }
        for name, column in table.items():
            column.append(values[name])
    return Predictions.of(task, table)


def data_source(row: Row) -> str:
    """Where the row is from, as rewards are told."""
    return str(row.get("data_source") or "unknown")


def _reward(task: Task[Any], answer: Answer, truth: Verdict, source: str) -> float:
    """A scoring rule's is that of the distribution, where there is one."""
    if task.reward_config.is_rule and answer.probabilities is not None:
        mass = 1.0 if answer.mass is None else answer.mass
        return task.score_distribution([p * mass for p in answer.probabilities], truth)
    known = answer.verdict is not None
    return float(task.reward(answer.verdict, truth, source) if known else task.reward_config.invalid_reward)


def _parse(task: Task[Any], text: str) -> Answer:
    try:
        return Answer(verdict=task.parse(text), text=text)
    except InvalidVerdict as error:
        return Answer(text=text, problem=problem_of(error))


def _check(answer: Answer, labels: Sequence[Any], row: Row) -> None:
    if answer.verdict is not None and answer.verdict not in labels:
        raise DataError(f"{row_name(row)}: the verdict {answer.verdict!r} is not one of {_few(labels)}")
    p = answer.probabilities
    if p is not None and (len(p) != len(labels) or min(p) < 0 or not math.isclose(sum(p), 1, abs_tol=1e-6)):
        raise DataError(
            f"{row_name(row)}: {p} is not a distribution over the {len(labels)} verdicts {_few(labels)}; each needs "
            "a probability, and they must sum to 1"
        )


def _few(labels: Sequence[Any]) -> str:
    shown = ", ".join(repr(label) for label in labels[:9])
    return f"({shown}, …)" if len(labels) > 9 else f"({shown})"


def _content(row: Row, kind: Kind, first_order: dict[str, str]) -> dict[str, Any]:
    """The columns that describe what was judged; `first_order` remembers which response stood first."""
    if kind != "pairwise":
        sample = Sample.from_row(row)
        query, a, b, group, order = conversation_text(sample.input), sample.response, "", "", ""
    else:
        pair = Pair.unlabelled(row)
        query, a, b = conversation_text(pair.input), pair.response_a, pair.response_b
        # The group is what the two orders have in common. Taking it from the texts holds for every source,
        # also for files whose metadata does not name it.
        both = "\x1e".join(sorted((a, b)))
        group = hashlib.sha256(f"{query}\x1d{both}".encode()).hexdigest()[:16]
        order = "forward" if a == first_order.setdefault(group, a) else "swapped"
    words = {"words": len(a.split()), "words_b": len(b.split())}
    return {"query": query, "response": a, "response_b": b, "group": group, "order": order, **words}
