"""One question to a saved judge, with its answer made readable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.data.samples import Message, Pair, Sample
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.judge.local import LocalJudge
from rm_gallery.core.tasks import get_task
from rm_gallery.core.tasks.saved import answer_length, load_saved_task

_BAR = 30


@dataclass(frozen=True, slots=True)
class Judgment:
    """What a judge said of one question.

    `written` is its own answer. `expected` is the distribution over `verdicts`; None for a judge that reasons first:
    its verdict depends on reasoning that cannot be enumerated.
    """

    verdicts: tuple[Any, ...]
    written: Answer
    expected: Answer | None

    def to_dict(self) -> dict[str, Any]:
        written = self.written
        said = {"text": written.text, "verdict": written.verdict, "problem": written.problem or None}
        if self.expected is None or self.expected.probabilities is None:
            return said
        probabilities = zip(self.verdicts, self.expected.probabilities, strict=True)
        return {
            **said,
            "probabilities": {str(verdict): probability for verdict, probability in probabilities},
            "legal_mass": self.expected.mass,
        }


def ask(
    model: str | Path,
    query: str,
    response: str,
    response_b: str | None = None,
    *,
    trust_remote_code: bool = False,
) -> Judgment:
    """Ask the judge at `model`; with `response_b`, which of the two responses is better.

    A folder without a card is asked the built-in pointwise or pairwise question.

    Raises:
        ConfigError: there is no model, or it was trained on the other kind of question.
    """
    saved = load_saved_task(model)
    kind = "pointwise" if response_b is None else "pairwise"
    task = saved.task if saved else get_task(kind)
    if task.responses != (1 if response_b is None else 2):
        wanted = "two responses (--response and --response-b)" if task.responses == 2 else "one response"
        raise ConfigError(f"{model} is a {task.name} judge: give it {wanted}")
    turns = (Message("user", query),)
    row = Sample(turns, response, {}) if response_b is None else Pair(turns, response, response_b, "tie")
    judge = LocalJudge.load(model, dtype="auto", trust_remote_code=trust_remote_code)
    question, length = [task.messages(row.to_row())], answer_length(saved, task)
    [written] = judge.answer(task, question, mode="greedy", max_new_tokens=length)
    expected = None
    if "expected" in judge.modes and not (task.think or judge.reasoning_model):
        [expected] = judge.answer(task, question, mode="expected", max_new_tokens=length)
    return Judgment(tuple(task.verdicts()), written, expected)


def describe(judgment: Judgment) -> str:
    """The judgment as lines of text, the distribution as bars."""
    written, expected = judgment.written, judgment.expected
    shown = written.text if len(written.text) <= 200 else written.text[:200] + "…"
    head = f"verdict  {written.verdict}" if not written.problem else f"no verdict: {written.problem}"
    if expected is None or expected.probabilities is None or expected.mass is None:
        return "\n".join([f"written  {shown}", head])
    width = max(len(str(verdict)) for verdict in judgment.verdicts)
    bars = [
        f"  {verdict!s:>{width}}  {probability:6.1%}  {'█' * round(_BAR * probability)}".rstrip()
        for verdict, probability in zip(judgment.verdicts, expected.probabilities, strict=True)
    ]
    mass = (
        f"(the judge gives {expected.mass:.1%} of its probability to legal verdicts; the bars share it out)"
    )
    return "\n".join([f"written  {shown}", head, "", *bars, mass])
