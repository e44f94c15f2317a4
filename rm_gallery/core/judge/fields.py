"""An answer as JSON values: the one shape in which code, the command line, graders and the service give it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.judge.marginals import Marginals
from rm_gallery.core.judge.orders import mirror, outcome
from rm_gallery.core.tasks.base import Task

Probabilities: TypeAlias = dict[str, float] | dict[str, dict[str, float]]
"""Of each legal verdict, summing to 1; of several dimensions, for each of them that of each of its scores."""


def answer_fields(answer: Answer, task: Task[Any] | None) -> dict[str, Any]:
    """`verdict`, `probabilities`, `mass` and `problem` of an answer, None where there is none; `problem` is then "".

    `task` is that of the question; None of a scalar model.
    """
    return {
        "verdict": answer.verdict,
        "probabilities": None if task is None else by_verdict(answer.probabilities, task),
        "mass": answer.mass,
        "problem": answer.problem,
    }


def pair_fields(forward: Answer, swapped: Answer, task: Task[Any]) -> dict[str, Any]:
    """Both orders of a pair together: `verdict`, `probabilities` (the mean), `consistent`, `orders` and `problem`.

    `orders` holds the `answer_fields` of `forward` and of `swapped`, both in the pair's own terms: A is the response
    that `forward` shows first.
    """
    labels = list(task.verdicts())
    together = outcome(forward, swapped, labels)
    mirrored = replace(swapped, verdict=together.swapped, probabilities=mirror(swapped.probabilities, labels))
    mean = None
    if forward.probabilities is not None and mirrored.probabilities is not None:
        mean = tuple((p + q) / 2 for p, q in zip(forward.probabilities, mirrored.probabilities, strict=True))
    said = together.forward is not None and together.swapped is not None
    return {
        "verdict": together.preferred,
        "probabilities": by_verdict(mean, task),
        "consistent": together.forward == together.swapped if said else None,
        "orders": {"forward": answer_fields(forward, task), "swapped": answer_fields(mirrored, task)},
        "problem": forward.problem or swapped.problem,
    }


def by_verdict(probabilities: Sequence[float] | None, task: Task[Any]) -> Probabilities | None:
    """A distribution over the task's verdicts by their names."""
    if probabilities is None:
        return None
    if not task.parts:
        return dict(zip(map(verdict_name, task.verdicts()), probabilities, strict=True))
    alone = Marginals([len(part.scale) for part in task.parts])(probabilities)
    return {
        part.name: dict(zip(map(str, part.scale), found, strict=True))
        for part, found in zip(task.parts, alone, strict=True)
    }


def verdict_name(verdict: Any) -> str:
    """How a verdict is named in a list of them: several scores at once as JSON."""
    return json.dumps(verdict) if isinstance(verdict, Mapping) else str(verdict)
