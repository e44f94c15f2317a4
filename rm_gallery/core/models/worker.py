"""`Worker`: a folder in this process, asked by any number of callers at once from the background loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rm_gallery.core.models.batching import Batcher
from rm_gallery.core.models.chat import ChatError, Messages
from rm_gallery.core.tasks.saved import load_saved_task

if TYPE_CHECKING:
    from rm_gallery.core.judge.local import LocalJudge

How = Callable[["LocalJudge", list[Any]], list[Any]]
"""What is done with a batch of conversations. Questions whose `how` is equal share batches."""


class Worker:
    """The judge at a folder or hub id, and the thread that asks it.

    Args:
        largest: questions of one batch.

    Raises:
        ConfigError: there is no model, or its card cannot be used.
    """

    def __init__(self, model: str, dtype: str, trust_remote_code: bool, *, largest: int) -> None:
        from rm_gallery.core.judge.local import LocalJudge

        self.model = model
        self.saved = load_saved_task(model)
        self.judge = LocalJudge.load(model, dtype=dtype, trust_remote_code=trust_remote_code)
        self._batcher: Batcher[Any] = Batcher(self._run, largest=largest)

    async def ask(self, messages: Messages, how: How) -> Any:
        """What `how` gives for this conversation.

        Raises:
            ChatError: it raised.
        """
        conversation = [dict(message) for message in messages]
        try:
            answer = await asyncio.wrap_future(self._batcher.submit(conversation, how))
        except Exception as error:  # out of memory, a conversation that the chat template refuses, …
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ChatError(f"{self.model} failed in this process: {said}", kind="local") from error
        if isinstance(answer, ChatError):
            raise answer
        return answer

    def close(self) -> None:
        """End the thread. The next question starts another."""
        self._batcher.close()

    def _run(self, conversations: list[Any], how: Any) -> list[Any]:
        return how(self.judge, conversations)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Written:
    """Greedy decoding, up to this length."""

    max_new_tokens: int

    def __call__(self, judge: LocalJudge, conversations: list[Any]) -> list[str | ChatError]:
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
