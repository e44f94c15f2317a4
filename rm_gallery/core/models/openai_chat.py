"""`OpenAIChatModel`: a chat model behind an OpenAI-compatible endpoint, or a folder in this process.

model = OpenAIChatModel(model="judge", base_url="http://127.0.0.1:8000/v1")
response = await model.achat([{"role": "user", "content": "What is 2 + 3?"}])
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models import background
from rm_gallery.core.models.chat import ChatError, ChatResponse, Messages, Price, Totals
from rm_gallery.core.models.retry import Backoff
from rm_gallery.core.models.structured import response_format as format_field
from rm_gallery.core.models.structured import with_parsed
from rm_gallery.core.models.transport import ChatTransport, Failure
from rm_gallery.core.models.wire import Completion
from rm_gallery.core.models.worker import Worker, Written
from rm_gallery.core.tasks.saved import answer_length

if TYPE_CHECKING:
    from rm_gallery.core.judge.base import ModelJudge
    from rm_gallery.core.judge.subject import Engine
    from rm_gallery.core.tasks.base import Task

OPENAI = "https://api.openai.com/v1"
ANSWER_LENGTH = 512
"""In tokens: where a local model that is no saved judge is cut off."""

ResponseFormat = type[BaseModel] | Mapping[str, Any]


class OpenAIChatModel:
    """A chat model. May be used from any thread and any event loop, and from several at once.

    Args:
        model: its name at the endpoint; with `is_local`, a folder or hub id.
        base_url: of the endpoint, up to `/v1`. None: `OPENAI_BASE_URL`, else OpenAI.
        api_key: None: `OPENAI_API_KEY`, else none is sent. It is shown nowhere.
        is_local: load the model into this process. It answers by greedy decoding; concurrent calls share batches.
        engine: what runs a local model: `transformers`, or `vllm` where that is installed.
        engine_options: of vLLM, to `vllm.LLM` (`tensor_parallel_size`, `gpu_memory_utilization`, …).
        timeout: seconds for one attempt, from connecting to the last byte.
        max_retries: attempts after the first, on 408, 429, 500, 502, 503, 504, 529, a lost connection, a timeout and
            JSON that breaks off.
        max_concurrency: requests under way at once; of a local model, questions in a batch (of vLLM,
            under way).
        backoff: the waits between attempts.
        temperature, max_tokens: where a call gives none. None: the endpoint's own; of a local model, the length of
            its answers in training.
        extra_body: fields of the request, over ours; one that is None is left out.
        price: of a million tokens, (question, answer); without it there is no cost.
        dtype, trust_remote_code: of a local model, as `LocalJudge.load` and `VllmJudge.load` take them.

    Raises:
        ConfigError: an argument that cannot be, no key for OpenAI, or no model at that folder.
        MissingDependency: what runs a local model is not installed.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        is_local: bool = False,
        *,
        engine: Engine = "transformers",
        engine_options: Mapping[str, Any] | None = None,
        timeout: float = 120.0,
        max_retries: int = 5,
        max_concurrency: int = 16,
        backoff: Backoff | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        price: Price | tuple[float, float] | None = None,
        dtype: str = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        if timeout <= 0 or max_retries < 0 or max_concurrency < 1:
            raise ConfigError(
                f"timeout {timeout}, max_retries {max_retries} and max_concurrency {max_concurrency}: expected "
                f"more than 0, at least 0 and at least 1"
            )
        self.model = str(model)
        self.is_local = is_local
        self.max_concurrency = max_concurrency
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.extra_body = dict(extra_body or {})
        self.price = None if price is None else Price(*price)
        self.task: Task[Any] | None = None
        self.judge: ModelJudge | None = None
        self._length_field = "max_tokens"
        self._answered = self._failed = self._in = self._out = self._uncounted = self._local_requests = 0
        if is_local:
            if base_url or extra_body or price:
                raise ConfigError(
                    "is_local=True loads a folder in this process: leave base_url, extra_body and price out"
                )
            self._worker = Worker(
                self.model,
                engine=engine,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                largest=max_concurrency,
                options=dict(engine_options or {}),
            )
            self.judge = self._worker.judge
            if (saved := self._worker.saved) is not None:
                self.task = saved.task
                self.max_tokens = max_tokens or answer_length(saved, saved.task)
            return
        if engine != "transformers" or engine_options:
            raise ConfigError("engine and engine_options run a folder in this process: say is_local=True")
        url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY")
        if not key and url.startswith(OPENAI):
            raise ConfigError(
                "there is no key for OpenAI: set OPENAI_API_KEY, or give base_url for another endpoint, or "
                "is_local=True for a folder"
            )
        self._transport = ChatTransport(
            url,
            key,
            timeout=timeout,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            backoff=backoff or Backoff(),
        )

    def __repr__(self) -> str:
        place = "is_local=True" if self.is_local else f"base_url={self.base_url!r}"
        return f"OpenAIChatModel(model={self.model!r}, {place})"

    @property
    def base_url(self) -> str | None:
        """None for a local model."""
        return None if self.is_local else self._transport.base_url

    @property
    def fingerprint(self) -> str:
        """Tells its answers from those of another model, or of the same one asked otherwise; part of a journal's keys."""
        place = self.base_url if self.judge is None else self.judge.fingerprint
        made_of = [place, self.model, self.temperature, self.max_tokens, self.extra_body]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def totals(self) -> Totals:
        """What has been asked so far."""
        local = self.is_local
        return Totals(
            requests=self._local_requests if local else self._transport.requests,
            retries=0 if local else self._transport.retries,
            answered=self._answered,
            failed=self._failed,
            prompt_tokens=self._in,
            completion_tokens=self._out,
            uncounted=self._uncounted,
            cost=self._cost(self._in, self._out),
        )

    async def achat(
        self,
        messages: Messages,
        *,
        n: int = 1,
        temperature: float | None = None,
        max_tokens: int | None = None,
        logprobs: int | None = None,
        response_format: ResponseFormat | None = None,
        seed: int | None = None,
        top_p: float | None = None,
    ) -> ChatResponse:
        """Answer the messages.

        Args:
            n: samples. A server may give fewer: there are as many as `texts`.
            logprobs: also the log-probability of each token, and of so many of the most probable ones at its place.
            response_format: a pydantic model, whose schema is sent and which the answer must fit (`parsed`), or the
                request's field itself, which is sent as it is.

        Raises:
            ChatError: there is no answer, or it does not fit the model that was asked for.
            ConfigError: a local model cannot do what is asked.
        """
        return await background.hop(
            self._ask(
                messages,
                n=n,
                temperature=temperature,
                max_tokens=max_tokens,
                logprobs=logprobs,
                response_format=response_format,
                seed=seed,
                top_p=top_p,
            )
        )

    def chat(self, messages: Messages, **options: Any) -> ChatResponse:
        """`achat`, with its options, for code that does not await; in a notebook too, which it holds up."""
        return background.wait(self._ask(messages, **options))

    async def abatched(
        self, messages: Messages, how: Callable[[ModelJudge, list[list[dict[str, Any]]]], list[Any]]
    ) -> Any:
        """Have a local model's worker call `how(judge, conversations)`, and give back what is in this one's place.

        Concurrent calls with an equal `how` share batches, as those of `achat` do.

        Raises:
            ChatError: the call raised.
        """
        return await background.hop(self._ask_batched(messages, how))

    def close(self) -> None:
        """Close the connections, or end the worker. The next call opens them again."""
        if self.is_local:
            self._worker.close()
        else:
            background.wait(self._transport.close())

    async def _ask(
        self,
        messages: Messages,
        *,
        n: int = 1,
        temperature: float | None = None,
        max_tokens: int | None = None,
        logprobs: int | None = None,
        response_format: ResponseFormat | None = None,
        seed: int | None = None,
        top_p: float | None = None,
    ) -> ChatResponse:
        """Runs on the background loop, whose thread is the only one that counts."""
        wanted = response_format
        temperature = self.temperature if temperature is None else temperature
        max_tokens = self.max_tokens if max_tokens is None else max_tokens
        try:
            if self.is_local:
                if n != 1 or temperature or logprobs is not None or isinstance(wanted, Mapping):
                    raise ConfigError(
                        f"{self.model} answers in this process, by greedy decoding: it takes no n, temperature, "
                        f"logprobs or schema"
                    )
                response = await self._generate(messages, max_tokens)
            else:
                fields = {
                    "n": n if n != 1 else None,
                    "temperature": temperature,
                    self._length_field: max_tokens,
                    "logprobs": None if logprobs is None else True,
                    "top_logprobs": logprobs,
                    "response_format": None if wanted is None else format_field(wanted),
                    "seed": seed,
                    "top_p": top_p,
                }
                response = await self._post(messages, fields)
            if isinstance(wanted, type):
                response = with_parsed(response, wanted, self.model)
        except ChatError:
            self._failed += 1
            raise
        self._answered += 1
        return response

    async def _post(self, messages: Messages, fields: dict[str, Any]) -> ChatResponse:
        merged = {**fields, **self.extra_body}
        payload = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            **{key: value for key, value in merged.items() if value is not None},
        }
        result, attempts = await self._transport.post(payload)
        if isinstance(result, Failure):
            if result.unsupported == "max_tokens" and fields.get("max_tokens") is not None:
                # OpenAI's newer models have another name for it
                self._length_field = "max_completion_tokens"
                fields[self._length_field] = fields.pop("max_tokens")
                return await self._post(messages, fields)
            if result.kind == "not_found":
                local = "; is_local=True loads a folder" if Path(self.model).is_dir() else ""
                hint = f"{result.said}: check base_url and the model's name, {self.model!r}{local}"
                result = replace(result, said=hint)
            raise self._transport.error(result, attempts)
        return self._response(result, attempts)

    def _response(self, completion: Completion, attempts: int) -> ChatResponse:
        usage = completion.usage
        counted = usage.prompt_tokens is not None and usage.completion_tokens is not None
        self._in += usage.prompt_tokens or 0
        self._out += usage.completion_tokens or 0
        self._uncounted += not counted
        return ChatResponse(
            texts=tuple(
                choice.message.content or choice.message.refusal or "" for choice in completion.choices
            ),
            finish_reasons=tuple(choice.finish_reason or "" for choice in completion.choices),
            logprobs=tuple(choice.tokens() for choice in completion.choices),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost=self._cost(usage.prompt_tokens, usage.completion_tokens) if counted else None,
            attempts=attempts,
        )

    def _cost(self, prompt: int | None, completion: int | None) -> float | None:
        if self.price is None or prompt is None or completion is None:
            return None
        return (prompt * self.price.input + completion * self.price.output) / 1e6

    async def _ask_batched(self, messages: Messages, how: Any) -> Any:
        try:
            answer = await self._work(messages, how)
        except ChatError:
            self._failed += 1
            raise
        self._answered += 1
        return answer

    async def _generate(self, messages: Messages, max_tokens: int | None) -> ChatResponse:
        text = await self._work(messages, Written(max_tokens or ANSWER_LENGTH))
        return ChatResponse(texts=(text,), finish_reasons=("",), logprobs=(None,))

    async def _work(self, messages: Messages, how: Any) -> Any:
        self._local_requests += 1
        answer = await self._worker.ask(messages, how)
        self._uncounted += 1
        return answer
