"""Responses scored by a judge, wherever it runs: in this process, behind an endpoint, as a service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rm_gallery.core.errors import ConfigError, DataError

if TYPE_CHECKING:  # rewards are imported by tasks, and these import tasks
    from rm_gallery.core.judge.answer import Answer, Mode
    from rm_gallery.core.judge.subject import Candidate
    from rm_gallery.core.models import OpenAIChatModel
    from rm_gallery.core.models.chat import ChatError
    from rm_gallery.core.tasks.base import Task

Turns = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Scored:
    """One response's score.

    Attributes:
        score: on the judge's own scale, of several dimensions their weighted mean; None where there is none.
        verdict: the judge's most probable one; None of a scalar model.
        problem: why there is no score, beginning with `unparsable`, `unfinished`, `overlong` or `failed`; else "".
    """

    score: float | None
    verdict: Any = None
    problem: str = ""


Scorer = Callable[[Sequence[tuple[Turns, str]]], list[Scored]]
"""(conversation, response) of each item → its score, in order."""


def open_scorer(
    model: str | Path | Candidate | OpenAIChatModel,
    task: Task[Any] | str | None = None,
    *,
    mode: Mode | None = None,
) -> Scorer:
    """Load a model, or connect to it, for scores.

    Args:
        model: a folder or hub id of a judge or a scalar model; the address of a service (`http://…`); what
            `Candidate` takes (`openai:NAME`), or one with its options; or a chat model.
        task: what a judge is asked, as `load_task` takes it; by default what it was trained on, and `pointwise` for one
            without a card.
        mode: as of `ChatJudge`: by default the mean of the distribution where there is one.

    Raises:
        ConfigError: there is no such model, it compares two responses, or it cannot be asked in this mode.
        MissingDependency: an extra is not installed.
    """
    from rm_gallery.core.judge.subject import Candidate
    from rm_gallery.core.models import OpenAIChatModel
    from rm_gallery.core.tasks import get_task
    from rm_gallery.core.train.config import load_task

    named = load_task(task) if isinstance(task, str) else task
    if isinstance(model, OpenAIChatModel):
        return _of_chat(model, named or model.task or get_task("pointwise"), mode)
    if isinstance(model, str) and model.startswith(("http://", "https://")):
        if named is not None or mode is not None:
            raise ConfigError(f"{model} is a service, which has its own task and mode: leave both out")
        return _of_service(model)
    candidate = model if isinstance(model, Candidate) else Candidate(str(model))
    return _of_candidate(candidate, named, mode)


def _of_service(url: str) -> Scorer:
    from rm_gallery.core.rewards.service import ServiceClient

    client = ServiceClient(url)
    return lambda items: client.score([{"messages": turns, "response": text} for turns, text in items])


def _of_chat(model: OpenAIChatModel, task: Task[Any], mode: Mode | None) -> Scorer:
    from rm_gallery.core.judge.chat import ChatJudge
    from rm_gallery.core.models import background
    from rm_gallery.core.models.chat import ChatError

    judge = ChatJudge(model, _rating(task, model.model), mode=mode)

    async def ask(conversation: Sequence[dict[str, str]]) -> Answer | ChatError:
        try:
            return await judge.aanswer(conversation)
        except ChatError as error:
            return error

    async def ask_all(conversations: Sequence[Any]) -> list[Answer | ChatError]:
        return await asyncio.gather(*map(ask, conversations))

    def score(items: Sequence[tuple[Turns, str]]) -> list[Scored]:
        found = _asked(
            items,
            lambda turns, text: task.messages(_row(turns, text)),
            lambda conversations: background.wait(ask_all(conversations)),
        )
        return [_scored(answer, task) for answer in found]

    return score


def _of_candidate(candidate: Candidate, task: Task[Any] | None, mode: Mode | None) -> Scorer:
    from rm_gallery.core.judge.subject import Asking
    from rm_gallery.core.tasks import get_task

    if candidate.is_scalar:
        if task is not None or mode is not None:
            raise ConfigError(
                f"{candidate.name} is a scalar model, which is asked nothing: leave task and mode out"
            )
        subject, asked = candidate.open(), None
    else:
        saved = candidate.saved
        asked = _rating(task or (saved.task if saved else get_task("pointwise")), candidate.name)
        subject = candidate.open()
    ask, _ = subject.asking(asked, Asking(mode=mode or _mode(subject.judge, asked)))

    def score(items: Sequence[tuple[Turns, str]]) -> list[Scored]:
        found = _asked(
            items,
            lambda turns, text: (
                [*turns, {"role": "assistant", "content": text}]
                if asked is None
                else asked.messages(_row(turns, text))
            ),
            lambda conversations: ask(conversations, done=lambda _: None),
        )
        return [_scored(answer, asked) for answer in found]

    return score


def _asked(
    items: Sequence[tuple[Turns, str]],
    conversation: Callable[[Turns, str], Any],
    ask: Callable[[list[Any]], Sequence[Answer | ChatError]],
) -> list[Answer | Exception]:
    """The answer to each item; to one that cannot be asked about, why not, which leaves the others alone."""
    conversations: dict[int, Any] = {}
    found: dict[int, Answer | Exception] = {}
    for i, item in enumerate(items):
        try:
            conversations[i] = conversation(*item)
        except DataError as error:
            found[i] = error
    found.update(zip(conversations, ask(list(conversations.values())), strict=True))
    return [found[i] for i in range(len(items))]


def turns_of(messages: Iterable[Mapping[str, Any]]) -> Turns:
    """Chat messages as texts, a content that is null as "". Raises `DataError` for one of another kind."""
    return [{"role": str(turn["role"]), "content": content_of(turn)} for turn in messages]


def content_of(turn: Mapping[str, Any]) -> str:
    """The text of one message, as of `turns_of`."""
    content = turn.get("content") or ""
    if not isinstance(content, str):
        raise DataError(f"the {turn['role']}'s turn holds {type(content).__name__}, and a judge reads text")
    return content


def _mode(judge: Any, task: Task[Any] | None) -> Mode:
    from rm_gallery.core.judge.answer import weighs

    return "expected" if task is not None and weighs(task, judge) else "greedy"


def _rating(task: Task[Any], name: str) -> Task[Any]:
    if task.responses != 1:
        raise ConfigError(
            f"{name} is a {task.name} judge, which compares two responses: a reward needs one that scores each"
        )
    if any(task.number(verdict) is None for verdict in task.verdicts()):
        raise ConfigError(
            f"the verdicts of the task {task.name} are no numbers: a reward needs one that scores"
        )
    return task


def _row(turns: Turns, response: str) -> dict[str, Any]:
    return {"input": turns, "output": {"content": response}}


def _scored(answer: Answer | Exception, task: Task[Any] | None) -> Scored:
    if isinstance(answer, Exception):
        kind = getattr(answer, "kind", "")
        return Scored(None, None, f"{'overlong' if kind == 'overlong' else 'failed'}: {answer}")
    return Scored(answer.value(task), answer.verdict, answer.problem)
