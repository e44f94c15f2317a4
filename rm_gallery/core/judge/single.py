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

    `verdict` is None where the text holds no legal verdict; `problem` says why. `distribution` is over `verdicts`; None
    for a judge that reasons first: its verdict depends on reasoning that cannot be enumerated.
    """

    text: str
    verdict: Any
    problem: str
    verdicts: tuple[Any, ...]
    distribution: Answer | None

    def to_dict(self) -> dict[str, Any]:
        said = {"text": self.text, "verdict": self.verdict, "problem": self.problem or None}
        if self.distribution is None:
            return said
        probabilities = zip(self.verdicts, self.distribution.probabilities or (), strict=True)
        return {
            **said,
            "probabilities": {str(verdict): probability for verdict, probability in probabilities},
            "legal_mass": self.distribution.mass,
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
    distribution = None
    if "expected" in judge.modes and not (task.think or judge.reasoning_model):
        [distribution] = judge.answer(task, question, mode="expected", max_new_tokens=length)
    return Judgment(
        written.text,
        written.verdict,
        written.problem,
        tuple(task.verdicts()),
        distribution if distribution and distribution.probabilities else None,
    )


def describe(judgment: Judgment) -> str:
    """The judgment as lines of text, the distribution as bars."""
    shown = judgment.text if len(judgment.text) <= 200 else judgment.text[:200] + "…"
    head = f"verdict  {judgment.verdict}" if not judgment.problem else f"no verdict: {judgment.problem}"
    distribution = judgment.distribution
    if distribution is None:
        return "\n".join([f"written  {shown}", head])
    width = max(len(str(verdict)) for verdict in judgment.verdicts)
    bars = [
        f"  {verdict!s:>{width}}  {probability:6.1%}  {'█' * round(_BAR * probability)}".rstrip()
        for verdict, probability in zip(judgment.verdicts, distribution.probabilities or (), strict=True)
    ]
    mass = f"(the judge gives {distribution.mass:.1%} of its probability to legal verdicts; the bars share it out)"
    return "\n".join([f"written  {shown}", head, "", *bars, mass])
