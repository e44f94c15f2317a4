"""From what a model wrote, or could have written, to an `Answer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rm_gallery.core.errors import InvalidVerdict
from rm_gallery.core.judge.answer import FAILED, OVERLONG, Answer, problem_of
from rm_gallery.core.judge.marginals import Marginals
from rm_gallery.core.tasks.base import Task

NOT_FINITE = f"{FAILED}: the model's numbers are not finite"
DASHES = "\n-----\n"
"""Between the samples of a vote."""


def read(task: Task[Any], text: str) -> Answer:
    """The verdict in one written answer."""
    try:
        return Answer(task.parse(text), text)
    except InvalidVerdict as error:
        return Answer(text=text, problem=problem_of(error))


def tally(task: Task[Any], texts: Sequence[str]) -> Answer:
    """The vote of several written answers: those that hold no legal verdict have none.

    Of several dimensions each is voted on by itself, for hardly two samples are alike in all of them.
    """
    verdicts = list(task.verdicts())
    counts, problems = np.zeros(len(verdicts)), []
    for text in texts:
        try:
            counts[verdicts.index(task.parse(text))] += 1
        except InvalidVerdict as error:
            problems.append(problem_of(error))
    written, legal = DASHES.join(texts), int(counts.sum())
    if not legal:
        kind, _, said = problems[0].partition(": ")
        problem = f"{kind}: none of {len(texts)} samples holds a legal verdict, the first because {said}"
        return Answer(text=written, problem=problem, mass=0.0)
    shares = tuple((counts / legal).tolist())
    verdict = verdicts[int(counts.argmax())]
    if task.parts:
        alone = Marginals([len(part.scale) for part in task.parts])(shares)
        verdict = {
            part.name: part.scale[int(np.argmax(p))] for part, p in zip(task.parts, alone, strict=True)
        }
    return Answer(verdict, written, probabilities=shares, mass=legal / len(texts))


def weigh(task: Task[Any], log_probs: Sequence[float]) -> Answer:
    """The distribution given the log-probability of each legal verdict's canonical text.

    A model that overflowed, or diverged in training, has given no answer: that is the answer's problem.
    """
    logs = np.asarray(log_probs, dtype=np.float64)
    if not np.isfinite(logs.max()):  # NaN where one is
        return Answer(problem=NOT_FINITE)
    # relative to the largest: a judge that gives e^-800 to every verdict still prefers one
    relative = np.exp(logs - logs.max())
    total = relative.sum()
    return Answer(
        list(task.verdicts())[int(logs.argmax())],
        probabilities=tuple((relative / total).tolist()),
        mass=min(1.0, float(np.exp(logs.max()) * total)),  # rounding may go a hair beyond 1
    )


def refused(error: Exception) -> Answer:
    """What a conversation is answered that the chat template refuses."""
    return Answer(problem=f"{FAILED}: the chat template refuses the conversation: {error}")


def overlong(tokens: int, answer: int, context: int) -> Answer:
    """What a question is answered that the model has no room for; `answer` is how long a written one may become."""
    more = f" and its answer up to {answer}" if answer else ""
    return Answer(problem=f"{OVERLONG}: the prompt has {tokens} tokens{more}, the model's context {context}")
