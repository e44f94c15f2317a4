"""One question to a saved judge, with its answer made readable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rm_gallery.core.data.samples import Message, Pair, Sample
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import Answer, weighs
from rm_gallery.core.judge.local import LocalJudge
from rm_gallery.core.judge.marginals import Marginals
from rm_gallery.core.judge.subject import Candidate
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.tasks.saved import answer_length

_BAR = 30


@dataclass(frozen=True, slots=True)
class Judgment:
    """What a judge said of one question.

    `verdict` is None where the text holds no legal verdict; `problem` says why. `distribution` is over `verdicts`; None
    for a judge that reasons first: its verdict depends on reasoning that cannot be enumerated. `scales` are those of a
    judge of several dimensions, by name.
    """

    text: str
    verdict: Any
    problem: str
    verdicts: tuple[Any, ...]
    distribution: Answer | None
    scales: dict[str, Sequence[int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        said = {"text": self.text, "verdict": self.verdict, "problem": self.problem or None}
        if self.distribution is None:
            return said
        found = {
            name: {str(value): probability for value, probability in pairs}
            for name, pairs in self.probabilities().items()
        }
        probabilities = found if self.scales else found[""]
        return {**said, "probabilities": probabilities, "legal_mass": self.distribution.mass}

    def probabilities(self) -> dict[str, list[tuple[Any, float]]]:
        """(verdict, probability) in the order of the scale; of several dimensions for each, else under ""."""
        joint = (self.distribution.probabilities if self.distribution else None) or ()
        if not self.scales:
            return {"": list(zip(self.verdicts, joint, strict=True))}
        alone = Marginals([len(scale) for scale in self.scales.values()])(joint)
        return {
            name: list(zip(scale, p, strict=True))
            for (name, scale), p in zip(self.scales.items(), alone, strict=True)
        }


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
    candidate = Candidate(str(model))
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
    distribution = None
    if weighs(asked, judge):
        [distribution] = judge.answer(asked, question, mode="expected", max_new_tokens=length)
    return Judgment(
        written.text,
        written.verdict,
        written.problem,
        tuple(asked.verdicts()),
        distribution if distribution and distribution.probabilities else None,
        {part.name: part.scale for part in asked.parts},
    )


def describe(judgment: Judgment) -> str:
    """The judgment as lines of text, the distribution as bars."""
    shown = judgment.text if len(judgment.text) <= 200 else judgment.text[:200] + "…"
    verdict = judgment.verdict
    if isinstance(verdict, Mapping):
        verdict = ", ".join(f"{name} {score}" for name, score in verdict.items())
    head = f"verdict  {verdict}" if not judgment.problem else f"no verdict: {judgment.problem}"
    distribution = judgment.distribution
    if distribution is None:
        return "\n".join([f"written  {shown}", head])
    bars = []
    for name, pairs in judgment.probabilities().items():
        width = max(len(str(verdict)) for verdict, _ in pairs)
        bars += [name] if name else []
        bars += [
            f"  {verdict!s:>{width}}  {probability:6.1%}  {'█' * round(_BAR * probability)}".rstrip()
            for verdict, probability in pairs
        ]
    mass = f"(the judge gives {distribution.mass:.1%} of its probability to legal verdicts; the bars share it out)"
    return "\n".join([f"written  {shown}", head, "", *bars, mass])
