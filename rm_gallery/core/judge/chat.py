"""`ChatJudge`: a chat model as a judge of one task, asked one question at a time by many callers at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import Answer, Conversation, Mode, reasons, too_many
from rm_gallery.core.judge.base import ModelJudge
from rm_gallery.core.judge.endpoint import EndpointJudge, parting
from rm_gallery.core.models.openai_chat import OpenAIChatModel
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.tasks.saved import answer_length

logger = logging.getLogger("rm_gallery.judge")


class ChatJudge:
    """Asks an `OpenAIChatModel`, behind an endpoint or in this process, where questions of many callers share batches.

    Args:
        model: the judge.
        task: what it is asked; its own (`model.task`) by default.
        mode: `expected` by default; `greedy` where the judge reasons first, or cannot be asked so.
        samples, seed: of mode `vote`.

    Raises:
        ConfigError: there is no task, or the judge cannot be asked in this mode.
    """

    def __init__(
        self,
        model: OpenAIChatModel,
        task: Task[Any] | None = None,
        *,
        mode: Mode | None = None,
        samples: int = 8,
        seed: int = 0,
    ) -> None:
        known = task or model.task
        if known is None:
            raise ConfigError(f"{model.model} carries no task of its own: say which one it is asked")
        self.model = model
        self.task: Task[Any] = known
        local = model.judge
        self.reasons = reasons(known, local)
        modes = local.modes if local is not None else EndpointJudge.modes
        self.mode: Mode = mode or ("expected" if "expected" in modes and self._distributes() else "greedy")
        if self.mode not in modes:
            raise ConfigError(
                f"{model.model} cannot be asked in mode {self.mode}, only in {' or '.join(modes)}"
            )
        if self.mode == "expected" and self.reasons:
            raise ConfigError(f"{model.model} reasons before its verdict: ask in mode vote, or greedy")
        length = model.max_tokens or answer_length(None, known)
        self._how = _Asked(known, self.mode, length, samples, seed)
        self._told = False
        self._endpoint = None if local is not None else EndpointJudge(model)

    def _distributes(self) -> bool:
        """Whether the verdicts' probabilities can be had."""
        if self.reasons or self.model.judge is not None:
            return not (self.reasons or too_many(self.task, "expected"))
        try:
            parting(self.task)
        except ConfigError:
            return False
        return True

    async def aanswer(self, conversation: Conversation) -> Answer:
        """Answer one conversation, from any event loop.

        Raises:
            ChatError: there is no answer, or the model in this process failed.
            ConfigError: the endpoint cannot be asked in this mode.
        """
        answer = await self._answer(conversation)
        if answer.verdict is not None and answer.mass is not None and answer.mass < 0.5 and not self._told:
            self._told = True
            logger.warning(
                f"{self.model.model} gives legal verdicts of the task {self.task.name} {answer.mass:.2g} of its "
                f"probability: was it trained on another question? (said once)"
            )
        return answer

    async def _answer(self, conversation: Conversation) -> Answer:
        how = self._how
        if self._endpoint is None:
            answer: Answer = await self.model.abatched(conversation, how)
            return answer
        return await self._endpoint.aanswer(
            how.task,
            conversation,
            mode=how.mode,
            max_new_tokens=how.max_new_tokens,
            samples=how.samples,
            seed=how.seed,
        )


@dataclass(frozen=True)
class _Asked:
    """What a local model's worker does with a batch."""

    task: Task[Any]
    mode: Mode
    max_new_tokens: int
    samples: int
    seed: int

    def __call__(self, judge: ModelJudge, conversations: list[Any]) -> list[Answer]:
        return judge.answer(
            self.task,
            conversations,
            mode=self.mode,
            max_new_tokens=self.max_new_tokens,
            samples=self.samples,
            seed=self.seed,
        )
