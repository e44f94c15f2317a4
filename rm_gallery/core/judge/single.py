"""One question to a saved judge, with its answer made readable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.data.samples import Message, Pair, Sample
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import weighs
from rm_gallery.core.judge.fields import Probabilities, answer_fields
from rm_gallery.core.judge.local import LocalJudge
from rm_gallery.core.judge.subject import Candidate
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.tasks.saved import answer_length

_BAR = 30


@dataclass(frozen=True, slots=True)
class Judgment:
    """What a judge said of one question: `answer_fields`, with a score and the text.

    Attributes:
        text: what it wrote.
        verdict: the one in the text; None where it holds no legal one.
        problem: why not, beginning with `unparsable`, `unfinished` or `overlong`; else "".
        score: the mean of the distribution, else the verdict, as the task's number; None of a pair.
        probabilities: by verdict, of several dimensions for each of them by its scores; None of a judge that reasons
            first, since its verdict depends on reasoning that cannot be enumerated.
        mass: what the judge gives all legal verdicts together; None as above.
    """

    text: str
    verdict: Any
    problem: str
    score: float | None
    probabilities: Probabilities | None
    mass: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def ask(
    model: str | Path,
    query: str,
    response: str,
    response_b: str | None = None,
    *,
    task: Task[Any] | str | Path | None = None,
    trust_remote_code: bool = False,
) -> Judgment:
    """Ask the judge at `model`; with `response_b`, which of the two responses is better.

    Args:
        task: what it is asked, also as `load_task` takes it; by default what it was trained on, and of a folder without
            a card the built-in pointwise or pairwise question.

    Raises:
        ConfigError: there is no model, or its task is about another number of responses.
    """
    candidate = Candidate(str(model), trust_remote_code=trust_remote_code)
    kind = "pointwise" if response_b is None else "pairwise"
    asked = task if isinstance(task, Task) else candidate.task(None if task is None else str(task), kind)
    if asked is None:
        raise ConfigError(
            f"{model} is a scalar model: it scores responses and writes no verdict; `rmg eval` measures it"
        )
    if asked.responses != (1 if response_b is None else 2):
        wanted = "two responses (--response and --response-b)" if asked.responses == 2 else "one response"
        raise ConfigError(f"{model} is a {asked.name} judge: give it {wanted}")
    turns = (Message("user", query),)
    row = Sample(turns, response, {}) if response_b is None else Pair(turns, response, response_b, "tie")
    judge = LocalJudge.load(model, dtype="auto", trust_remote_code=trust_remote_code)
    question, length = [asked.messages(row.to_row())], answer_length(candidate.saved, asked)
    [written] = judge.answer(asked, question, mode="greedy", max_new_tokens=length)
    weighed = None
    if weighs(asked, judge):
        [weighed] = judge.answer(asked, question, mode="expected", max_new_tokens=length)
    # what it wrote is the verdict, and what it would write the rest
    known = weighed if weighed is not None and weighed.probabilities is not None else written
    said = {**answer_fields(known, asked), "verdict": written.verdict, "problem": written.problem}
    return Judgment(text=written.text, score=known.value(asked), **said)


def describe(judgment: Judgment) -> str:
    """The judgment as lines of text, the distribution as bars."""
    shown = judgment.text if len(judgment.text) <= 200 else judgment.text[:200] + "…"
    verdict = judgment.verdict
    if isinstance(verdict, Mapping):
        verdict = ", ".join(f"{name} {score}" for name, score in verdict.items())
    head = f"verdict  {verdict}" if not judgment.problem else f"no verdict: {judgment.problem}"
    if judgment.probabilities is None:
        return "\n".join([f"written  {shown}", head])
    bars: list[str] = []
    for name, found in judgment.probabilities.items():
        bars += [name, *_bars(found)] if isinstance(found, dict) else []
    bars = bars or _bars(judgment.probabilities)
    mass = (
        f"(the judge gives {judgment.mass:.1%} of its probability to legal verdicts; the bars share it out)"
    )
    return "\n".join([f"written  {shown}", head, "", *bars, mass])


def _bars(probabilities: Mapping[str, Any]) -> list[str]:
    width = max(map(len, probabilities))
    return [
        f"  {verdict:>{width}}  {probability:6.1%}  {'█' * round(_BAR * probability)}".rstrip()
        for verdict, probability in probabilities.items()
    ]
