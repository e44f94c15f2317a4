"""`Engine`: the model as the thread that owns it runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from rm_gallery.core.errors import ConfigError, RMGalleryError
from rm_gallery.core.judge.answer import FAILED, Answer, Conversation, Mode, weighs
from rm_gallery.core.judge.base import ModelJudge, Tokens
from rm_gallery.core.judge.read import overlong
from rm_gallery.core.judge.scalar import ScalarJudge
from rm_gallery.core.judge.subject import Subject
from rm_gallery.core.serve.settings import Settings
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.tasks.saved import answer_length

log = logging.getLogger(__name__)

CHARACTERS = 4
"""About how many a token has."""
SCORE = "score"
"""The mode of a scalar model."""


@dataclass(frozen=True)
class Ask:
    """A question to the judge; `mode` is `SCORE` for a scalar model."""

    mode: str


@dataclass(frozen=True)
class Write:
    """A conversation to go on with. `asked`: the length was asked for, and is not only where to stop at last."""

    max_new_tokens: int
    asked: bool = True


@dataclass(frozen=True)
class Reply:
    """What was written to a conversation. `ended`: by the model, not cut off. With a `problem` there is nothing."""

    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended: bool = True
    problem: str = ""


Result = Answer | Reply


class Engine:
    """Runs a subject.

    Args:
        task: what a judge is asked; None for a scalar model, and for a judge whose folder carries its task.
        count: is told ("prompt" or "completion", how many tokens).

    Raises:
        ConfigError: a judge without a task, or one that cannot be asked in the mode of the settings.
    """

    def __init__(
        self,
        subject: Subject,
        task: Task[Any] | None,
        settings: Settings,
        count: Callable[[str, int], None] = lambda kind, number: None,
    ) -> None:
        self.subject = subject
        self.settings = settings
        self._count = count
        self.task: Task[Any] | None = None
        self.modes: tuple[str, ...] = (SCORE,)
        if subject.scorer is None:
            self.task = task or (subject.saved.task if subject.saved else None)
            if self.task is None:
                raise ConfigError(
                    f"{subject.name} does not say what it was trained to answer: give a task (--task pointwise or "
                    f"--task pairwise)"
                )
            self.modes = _modes(subject, self.task)
            if settings.mode is not None and settings.mode not in self.modes:
                raise ConfigError(
                    f"{subject.name} cannot be asked in mode {settings.mode}, only in {' or '.join(self.modes)}"
                )
        elif settings.mode is not None:
            raise ConfigError(f"{subject.name} gives numbers, in no mode: leave it out")
        self.mode = settings.mode if settings.mode in self.modes else self.modes[0]

    @property
    def task_name(self) -> str:
        return SCORE if self.task is None else self.task.name

    @property
    def writer(self) -> ModelJudge | None:
        """The judge where it can be talked to: one in this process."""
        judge = self.subject.judge
        return judge if isinstance(judge, ModelJudge) else None

    @property
    def batches(self) -> bool:
        """Whether the model makes its own batches, and may be asked by several threads."""
        return isinstance(self.subject.judge, ModelJudge) and self.subject.judge.batches

    @property
    def answer_length(self) -> int:
        """Where a written answer is cut off, in tokens."""
        assert self.task is not None
        return self.settings.max_new_tokens or answer_length(self.subject.saved, self.task)

    def run(
        self, kind: Hashable, conversations: Sequence[Conversation], done: Callable[[dict[int, Result]], None]
    ) -> None:
        """As `Batcher` calls it. An error that is not of one question is the answer to all."""
        try:
            if isinstance(kind, Write):
                self._write(conversations, kind, done)
            else:
                assert isinstance(kind, Ask)
                self._ask(conversations, kind.mode, done)
        except RMGalleryError as error:
            done(dict.fromkeys(range(len(conversations)), _without(kind, error)))

    def _ask(
        self, conversations: Sequence[Conversation], mode: str, done: Callable[[dict[int, Result]], None]
    ) -> None:
        judge, scorer = self.subject.judge, self.subject.scorer
        if isinstance(judge, ModelJudge):
            assert self.task is not None
            prompts = judge.encode(conversations)
            self._count("prompt", sum(len(prompt) for prompt in prompts if isinstance(prompt, tuple)))
            judge.answer_prompts(
                self.task,
                prompts,
                mode=_mode(mode),
                max_new_tokens=self.answer_length,
                done=done,  # type: ignore[arg-type]  # an answer is a result
            )
            return
        if isinstance(scorer, ScalarJudge):
            self._count("prompt", sum(len(scorer.encode(c)["input_ids"]) for c in conversations))
        if scorer is not None:
            scorer.score(conversations, done=done)  # type: ignore[arg-type]  # an answer is a result
            return
        assert judge is not None and self.task is not None  # noqa: PT018 - there is a judge or a scorer
        judge.answer(
            self.task,
            conversations,
            mode=_mode(mode),
            max_new_tokens=self.answer_length,
            done=done,  # type: ignore[arg-type]
        )

    def _write(
        self, conversations: Sequence[Conversation], kind: Write, done: Callable[[dict[int, Result]], None]
    ) -> None:
        judge = self.writer
        assert judge is not None
        most = kind.max_new_tokens
        asked: dict[int, dict[Tokens, list[int]]] = {}
        for i, prompt in enumerate(judge.encode(conversations)):
            if isinstance(prompt, Answer):
                done({i: Reply(problem=prompt.problem)})
                continue
            room = most if judge.context is None else judge.context - len(prompt)
            if room < (most if kind.asked else 1):
                done({i: Reply(problem=overlong(len(prompt), most, judge.context or 0).problem)})
            else:
                asked.setdefault(min(most, room), {}).setdefault(prompt, []).append(i)
        for length, places in asked.items():
            prompts = list(places)
            for batch in judge.complete(prompts, max_new_tokens=length):
                found: dict[int, Result] = {}
                for number, written in batch.items():
                    self._count("prompt", len(prompts[number]))
                    self._count("completion", written.tokens)
                    reply = Reply(written.text, len(prompts[number]), written.tokens, written.ended)
                    found.update(dict.fromkeys(places[prompts[number]], reply))
                done(found)


def failed(kind: Hashable, error: Exception) -> Result:
    """The answer to a question that could not be answered; whoever runs the service hears of it."""
    log.warning("a question failed: %s: %s", type(error).__name__, error)
    return _without(kind, error)


def _without(kind: Hashable, error: Exception) -> Result:
    said = str(error) if isinstance(error, RMGalleryError) else f"{type(error).__name__}: {error}"
    problem = f"{FAILED}: {' '.join(said.split())}"
    return Reply(problem=problem) if isinstance(kind, Write) else Answer(problem=problem)


def cost(conversation: Conversation) -> float:
    """About how many tokens a conversation has: one in four characters, and a few for each turn."""
    return sum(8 + len(turn["content"]) / CHARACTERS for turn in conversation)


def _modes(subject: Subject, task: Task[Any]) -> tuple[str, ...]:
    """How a service can ask the judge, the best first."""
    judge = subject.judge
    assert judge is not None
    return tuple(
        mode
        for mode in ("expected", "greedy")
        if mode in judge.modes and (mode == "greedy" or weighs(task, judge))
    )


def _mode(name: str) -> Mode:
    return "expected" if name == "expected" else "greedy"
