"""`Worker`: a folder in this process, asked by any number of callers at once from the background loop."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.batching import Batcher
from rm_gallery.core.models.chat import ChatError, Messages
from rm_gallery.core.tasks.saved import load_saved_task

if TYPE_CHECKING:
    from rm_gallery.core.judge.base import ModelJudge

How = Callable[["ModelJudge", list[Any]], list[Any]]
"""What is done with a batch of conversations. Questions whose `how` is equal share batches."""


class Worker:
    """The judge at a folder or hub id, and what asks it.

    Args:
        engine: `transformers`: one thread asks in batches of `largest` questions; `vllm`: so many threads ask, and
            vLLM brings together what they ask.
        options: of vLLM.

    Raises:
        ConfigError: there is no model, or its card cannot be used.
        MissingDependency: the engine is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        engine: str,
        dtype: str,
        trust_remote_code: bool,
        largest: int,
        options: Mapping[str, Any],
    ) -> None:
        from rm_gallery.core.judge.subject import ENGINES

        if engine not in ENGINES:
            raise ConfigError(f"engine is {engine!r}; it can be {' or '.join(ENGINES)}")
        self.model = model
        self.saved = load_saved_task(model, trust_remote_code=trust_remote_code)
        self.judge: ModelJudge
        if engine == "vllm":
            from rm_gallery.core.judge.vllm import VllmJudge

            self.judge = VllmJudge.load(model, dtype=dtype, trust_remote_code=trust_remote_code, **options)
        elif options:
            raise ConfigError("engine_options are vLLM's: say engine='vllm', or leave them out")
        else:
            from rm_gallery.core.judge.local import LocalJudge

            self.judge = LocalJudge.load(model, dtype=dtype, trust_remote_code=trust_remote_code)
        self._largest = largest
        self._lock = threading.Lock()
        self._batcher = self._new_batcher()

    def _new_batcher(self) -> Batcher[Any, Any]:
        return Batcher(
            self._run,
            failed=lambda how, error: error,
            most=1 if self.judge.batches else self._largest,
            threads=self._largest if self.judge.batches else 1,
            room=math.inf,  # whoever asks waits for the answer, and the callers' own limits bound how many
        )

    async def ask(self, messages: Messages, how: How) -> Any:
        """What `how` gives for this conversation.

        Raises:
            ChatError: it raised.
        """
        with self._lock:
            batcher = self._batcher
            ticket = batcher.submit(how, [[dict(message) for message in messages]])
        try:
            [answer] = await asyncio.wrap_future(ticket.answers)
        except asyncio.CancelledError:
            batcher.give_up(ticket)
            raise
        if isinstance(answer, ChatError):
            raise answer
        if isinstance(answer, Exception):  # out of memory, a conversation that the chat template refuses, …
            said = " ".join(f"{type(answer).__name__}: {answer}".split())
            raise ChatError(f"{self.model} failed in this process: {said}", kind="local") from answer
        return answer

    def close(self) -> None:
        """End the threads once they have answered what they were asked. The next question starts others."""
        with self._lock:
            self._batcher.close()
            self._batcher = self._new_batcher()

    def _run(
        self, how: Hashable, conversations: Sequence[Any], done: Callable[[dict[int, Any]], None]
    ) -> None:
        assert callable(how)
        done(dict(enumerate(how(self.judge, list(conversations)))))


@dataclass(frozen=True)
class Written:
    """Greedy decoding, up to this length."""

    max_new_tokens: int

    def __call__(self, judge: ModelJudge, conversations: list[Any]) -> list[str | ChatError]:
        refused: dict[int, ChatError] = {}
        for i, prompt in enumerate(judge.encode(conversations)):
            # one that the chat template refuses fails below, with its cause
            if (
                isinstance(prompt, tuple)
                and judge.context
                and len(prompt) + self.max_new_tokens > judge.context
            ):
                said = f"{len(prompt)} tokens and its answer up to {self.max_new_tokens}"
                refused[i] = ChatError(
                    f"the question has {said}, the model's context {judge.context}", kind="overlong"
                )
        fitting = [conversation for i, conversation in enumerate(conversations) if i not in refused]
        texts = iter(judge.generate(fitting, max_new_tokens=self.max_new_tokens))
        return [refused[i] if i in refused else next(texts) for i in range(len(conversations))]
