"""`EndpointJudge`: a judge behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from rm_gallery.core.errors import ConfigError, InvalidVerdict
from rm_gallery.core.judge.answer import FAILED, MODES, OVERLONG, UNPARSABLE, Answer, Conversation, Mode
from rm_gallery.core.judge.read import read, tally, weigh
from rm_gallery.core.models import background
from rm_gallery.core.models.chat import ChatError, ChatResponse, TokenLogprob
from rm_gallery.core.models.openai_chat import OpenAIChatModel
from rm_gallery.core.tasks.base import Task

_HOPELESS = ("key", "not_found", "quota")
"""Kinds of a `ChatError` that every other question would meet too."""


class EndpointJudge:
    """Asks the model behind an endpoint. Several questions are under way at once: the model's `max_concurrency`.

    Mode `expected` asks for one greedy answer with log-probabilities and reads the distribution at the token in which
    the legal verdicts differ (`verdict_log_probs`). It is exact for verdicts of one token up to what the endpoint does
    not tell: a verdict that is not among its `top_logprobs` most probable tokens counts 0, and how an answer goes on
    after its verdict is not looked at, so that the mass is an upper bound.

    Args:
        model: over an endpoint; a local folder is `LocalJudge`'s.
        top_logprobs: how many are asked for at each token; OpenAI and vLLM give 20 at most.
        temperature: of a vote's samples.
    """

    modes: tuple[Mode, ...] = MODES

    def __init__(self, model: OpenAIChatModel, *, top_logprobs: int = 20, temperature: float = 1.0) -> None:
        if model.is_local:
            raise ConfigError(f"{model.model} is loaded in this process: LocalJudge asks it")
        self.model = model
        self._weighs = False  # until an answer has had log-probabilities
        self.top_logprobs = top_logprobs
        self.temperature = temperature
        self._one_by_one = False  # the endpoint gives one sample a request, whatever it is asked
        made_of = [model.base_url, model.model, model.extra_body, top_logprobs, temperature]
        self.fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]

    def answer(
        self,
        task: Task[Any],
        conversations: Sequence[Conversation],
        *,
        mode: Mode,
        max_new_tokens: int,
        samples: int = 8,
        seed: int = 0,
        done: Callable[[dict[int, Answer]], None] = lambda _: None,
    ) -> list[Answer]:
        """As `Judge.answer`. The first question is asked alone: what is wrong with the endpoint shows at once.

        Raises:
            ChatError: the endpoint refuses the key or has no such model or quota, whenever that shows; or the first
                question found nobody there.
            ConfigError: mode `expected` cannot be had for this task or from this endpoint.
        """
        if mode == "expected":
            parting(task)

        async def ask(position: int) -> Answer:
            try:
                return await self.aanswer(
                    task,
                    conversations[position],
                    mode=mode,
                    max_new_tokens=max_new_tokens,
                    samples=samples,
                    seed=seed,
                )
            except ChatError as error:
                if error.kind in _HOPELESS or (position == 0 and error.kind == "unreachable"):
                    raise
                return Answer(problem=f"{OVERLONG if error.kind == 'overlong' else FAILED}: {error}")

        answers: dict[int, Answer] = {}
        width = self.model.max_concurrency
        for positions in (range(len(conversations))[:1], range(1, len(conversations))):
            # closed where `done` raises: what is under way is given up
            with closing(background.stream(ask, positions, width=min(width, len(positions)))) as batches:
                for batch in batches:
                    answers.update(batch)
                    done(batch)
        return [answers[i] for i in range(len(conversations))]

    async def aanswer(
        self,
        task: Task[Any],
        conversation: Conversation,
        *,
        mode: Mode,
        max_new_tokens: int,
        samples: int = 8,
        seed: int = 0,
    ) -> Answer:
        """Answer one conversation, from any event loop.

        Raises:
            ChatError: the endpoint gave no answer.
            ConfigError: as `answer`.
        """
        if mode == "vote":
            return await self._vote(task, conversation, max_new_tokens, samples, seed)
        if mode == "expected":
            return await self._expected(task, conversation, max_new_tokens)
        response = await self.model.achat(conversation, temperature=0, max_tokens=max_new_tokens)
        return read(task, response.text)

    async def _expected(self, task: Task[Any], asked: Conversation, max_new_tokens: int) -> Answer:
        try:
            response = await self.model.achat(
                asked, temperature=0, max_tokens=max_new_tokens, logprobs=self.top_logprobs
            )
        except ChatError as error:
            if error.kind == "refused" and "logprob" in str(error):
                raise ConfigError(f"{error}; modes greedy and vote do without log-probabilities") from error
            raise
        [tokens, *_] = response.logprobs
        if tokens is None and self._weighs:
            return Answer(text=response.text, problem=f"{FAILED}: it came without log-probabilities")
        if tokens is None:
            raise ConfigError(
                f"{self.model.base_url} gives no log-probabilities for {self.model.model}, which mode expected is "
                f"read from: use greedy or vote"
            )
        self._weighs = True
        try:
            return replace(weigh(task, verdict_log_probs(task, tokens)), text=response.text)
        except InvalidVerdict as error:
            return Answer(text=response.text, problem=f"{UNPARSABLE}: {error}", mass=0.0)

    async def _vote(
        self, task: Task[Any], asked: Conversation, max_new_tokens: int, samples: int, seed: int
    ) -> Answer:
        async def draw(count: int, number: int) -> ChatResponse:
            # what a model's own settings cut off would not be drawn
            return await self.model.achat(
                asked,
                n=count,
                temperature=self.temperature,
                top_p=1,
                max_tokens=max_new_tokens,
                seed=_seed(seed, asked, number),
            )

        texts: list[str] = []
        if not self._one_by_one:
            try:
                texts += (await draw(samples, 0)).texts
            except ChatError as error:
                if error.kind != "refused" or samples == 1:  # some servers refuse n > 1 instead
                    raise
        if len(texts) < samples:
            more = await asyncio.gather(*(draw(1, number) for number in range(len(texts), samples)))
            texts += [response.text for response in more]
            self._one_by_one = True
        return tally(task, texts[:samples])


def verdict_log_probs(task: Task[Any], tokens: Sequence[TokenLogprob]) -> list[float]:
    """The log-probability of each legal verdict's canonical text up to and with the token that tells it from others.

    `tokens` is one answer with its alternatives. Before that token the verdicts read alike, and so must the answer;
    white space may stand before it. A verdict that is not among the alternatives there has -inf.

    Raises:
        InvalidVerdict: the answer begins otherwise or breaks off, or no verdict is among the alternatives.
        ConfigError: the verdicts of this task do not differ in one token.
    """
    at = parting(task)
    texts = [task.format(verdict) for verdict in task.verdicts()]
    written = "".join(token.token for token in tokens)
    lead = written[: len(written) - len(written.lstrip())]
    stem = lead + texts[0][:at]
    if not written.startswith(stem):
        raise InvalidVerdict(f"the answer begins with {written[:40]!r} instead of {texts[0][:at]!r}")
    path, start = 0.0, 0
    for token in tokens:
        if start + len(token.token) > len(stem):
            break
        path, start = path + token.logprob, start + len(token.token)
    else:
        raise InvalidVerdict("the answer breaks off before its verdict")
    alternatives = list(token.top)
    if token.token not in dict(alternatives):
        alternatives.append((token.token, token.logprob))
    found = []
    for text in texts:
        rest = (lead + text)[start:]
        fitting = [
            math.exp(logprob)
            for other, logprob in alternatives
            if len(other) > len(stem) - start and rest.startswith(other)
        ]
        found.append(path + math.log(sum(fitting)) if sum(fitting) else -math.inf)
    if max(found) == -math.inf:
        raise InvalidVerdict(f"no legal verdict is among the {len(alternatives)} most probable tokens")
    return found


def parting(task: Task[Any]) -> int:
    """Where the canonical texts of the verdicts part. Raises `ConfigError` where one token cannot tell them apart."""
    if task.think:
        raise ConfigError(
            "this judge reasons before its verdict, whose probability depends on the reasoning: use vote, or greedy"
        )
    texts = [task.format(verdict) for verdict in task.verdicts()]
    at = len(os.path.commonprefix(texts))  # noqa: RUF071 - of texts, not of paths
    if len({text[at : at + 1] for text in texts}) < len(texts):
        raise ConfigError(
            f"some verdicts of the task {task.name} begin alike, and an endpoint does not tell how they go on: use "
            f"greedy or vote"
        )
    return at


def _seed(seed: int, asked: Conversation, number: int) -> int:
    """Another one for each question and sample, and the same in another run; of 31 bits, which every server takes."""
    content = json.dumps([seed, list(asked), number]).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> 1
