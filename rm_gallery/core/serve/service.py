"""`Service`: what the paths of the app do."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar, cast

from starlette.requests import Request

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import FAILED, Answer, Conversation
from rm_gallery.core.judge.fields import verdict_name
from rm_gallery.core.judge.subject import Subject
from rm_gallery.core.models.batching import Batcher
from rm_gallery.core.serve import asking, openrlhf
from rm_gallery.core.serve.chat import MAX_NEW_TOKENS, ChatCompletion, ChatRequest, completion
from rm_gallery.core.serve.engine import CHARACTERS, Ask, Engine, Reply, Result, Write, cost, failed
from rm_gallery.core.serve.errors import Refusal
from rm_gallery.core.serve.metrics import Metrics
from rm_gallery.core.serve.schemas import (
    CompareItem,
    CompareRequest,
    CompareResponse,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
    ServedModel,
)
from rm_gallery.core.serve.settings import Settings
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.tasks.saved import answer_length

T = TypeVar("T")


class Service:
    """A model, the queue before it, and what may be asked of it.

    Args:
        task: of a judge; None where its folder carries one, and for a scalar model.

    Raises:
        ConfigError: as `Engine`.
    """

    def __init__(self, subject: Subject, task: Task[Any] | None, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(subject, task, settings, self.metrics.count_tokens)
        self.batcher: Batcher[Conversation, Result] = Batcher(
            self.engine.run,
            failed=failed,
            cost=cost,
            most=1 if self.engine.batches else settings.max_batch,
            threads=settings.max_batch if self.engine.batches else 1,
            budget=settings.batch_tokens,
            room=settings.max_queue,
            volume=settings.max_text / CHARACTERS,
            seen=self.metrics.batches.observe,
        )
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)

    @property
    def name(self) -> str:
        return self.engine.subject.name

    @property
    def model(self) -> ServedModel:
        task = self.engine.task
        return ServedModel(
            id=self.name,
            task=self.engine.task_name,
            responses=1 if task is None else task.responses,
            verdicts=[] if task is None else [verdict_name(verdict) for verdict in task.verdicts()],
            modes=list(self.engine.modes),
            mode=self.engine.mode,
        )

    def try_out(self) -> None:
        """Ask one question, so that a model that cannot be asked shows before anyone waits for it.

        Raises:
            ConfigError: it gave no answer.
        """
        item = CompareItem(query="What is 2 + 3?", response_a="5", response_b="6")
        plan = asking.plan_comparisons([item], self.engine.task)
        for answer in self.batcher.submit(Ask(self.engine.mode), plan.conversations).answers.result():
            if answer.problem.startswith(FAILED):
                raise ConfigError(
                    f"{self.name} does not answer: {answer.problem.removeprefix(FAILED + ': ')}"
                )

    async def score(self, asked: ScoreRequest, request: Request) -> ScoreResponse:
        self._scores("score")
        mode = self._mode(asked.mode)
        self._check_items(len(asked.items))
        plan = asking.plan_scores(asked.items, self.engine.task)
        results = await self._follow(plan, mode, request)
        return ScoreResponse(model=self.name, task=self.engine.task_name, mode=mode, results=results)

    async def compare(self, asked: CompareRequest, request: Request) -> CompareResponse:
        mode = self._mode(asked.mode)
        self._check_items(2 * len(asked.items))
        plan = asking.plan_comparisons(asked.items, self.engine.task)
        results = await self._follow(plan, mode, request)
        return CompareResponse(model=self.name, task=self.engine.task_name, mode=mode, results=results)

    async def rank(self, asked: RankRequest, request: Request) -> RankResponse:
        mode = self._mode(asked.mode)
        sizes = [len(item.responses) for item in asked.items]
        pairs = self.engine.task is not None and self.engine.task.responses == 2
        self._check_items(sum(n * (n - 1) if pairs else n for n in sizes))
        if pairs:  # each text stands in many questions
            self._check_text(
                sum(
                    (n - 1) * (2 * sum(map(len, item.responses)) + n * item.length())
                    for n, item in zip(sizes, asked.items, strict=True)
                )
            )
        plan = asking.plan_rankings(asked.items, self.engine.task)
        results = await self._follow(plan, mode, request)
        return RankResponse(model=self.name, task=self.engine.task_name, mode=mode, results=results)

    async def reward(self, asked: openrlhf.RewardRequest, request: Request) -> openrlhf.RewardResponse:
        self._scores("reward")
        self._check_items(len(asked.query))
        plan = asking.plan_scores(openrlhf.items(asked), self.engine.task)
        results = await self._follow(plan, self.engine.mode, request)
        return openrlhf.rewards(results, self.settings.missing_reward)

    async def chat(self, asked: ChatRequest, request: Request) -> ChatCompletion:
        asked.check()
        if self.engine.writer is None:
            raise Refusal(400, f"{self.name} writes no text here: it is no generative judge in this process")
        limit = asked.limit or self._chat_length()
        kind = Write(limit, asked=asked.limit is not None)
        [reply] = await self._answers(kind, [asked.conversation()], request)
        return completion(cast(Reply, reply), self.name)

    def close(self) -> None:
        """Return once all that was accepted is answered."""
        self.batcher.close()

    async def _follow(self, plan: asking.Plan[T], mode: str, request: Request) -> list[T]:
        answers = await self._answers(Ask(mode), plan.conversations, request)
        return plan.results(cast("list[Answer]", answers))

    async def _answers(
        self, kind: Hashable, conversations: Sequence[Conversation], request: Request
    ) -> list[Result]:
        """The model's answers, unless the client leaves: nobody would read them then."""
        client = request.client.host if request.client else ""
        ticket = self.batcher.submit(kind, conversations, client=client)
        answered = asyncio.wrap_future(ticket.answers)
        left = asyncio.ensure_future(_left(request))
        try:
            either: set[asyncio.Future[Any]] = {answered, left}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                raise Refusal(400, "the client left")
            for answer in answered.result():
                self.metrics.count_problem(answer.problem)
            return answered.result()
        finally:
            if not answered.done():
                self.batcher.give_up(ticket)
            left.cancel()

    def _scores(self, what: str) -> None:
        task = self.engine.task
        if task is not None and task.responses == 2:
            raise Refusal(
                400,
                f"{self.name} compares two responses and has no {what} for one: ask /v1/compare or /v1/rank",
            )

    def _mode(self, asked: str | None) -> str:
        if self.engine.task is None:
            if asked is not None:
                raise Refusal(400, f"{self.name} gives numbers, in no mode: leave it out", param="mode")
            return self.engine.mode
        if asked is not None and asked not in self.engine.modes:
            modes = " or ".join(self.engine.modes)
            raise Refusal(400, f"{self.name} cannot be asked in mode {asked}, only in {modes}", param="mode")
        return asked or self.engine.mode

    def _check_items(self, questions: int) -> None:
        most = min(self.settings.max_items, self.settings.max_queue)
        if questions > most:
            raise Refusal(
                413, f"this comes to {questions} questions, and a request may ask {most}: ask in parts"
            )

    def _check_text(self, characters: int) -> None:
        if characters > self.settings.max_text:
            raise Refusal(
                413,
                f"these questions come to {characters} characters, and all that waits may have {self.settings.max_text}: "
                f"ask in parts",
            )

    def _chat_length(self) -> int:
        saved, task = self.engine.subject.saved, self.engine.task
        if self.settings.max_new_tokens is not None:
            return self.settings.max_new_tokens
        return MAX_NEW_TOKENS if saved is None or task is None else answer_length(saved, task)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
