"""`Batcher`: questions that come one by one, answered in batches by a model in this process."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

Conversation = Sequence[dict[str, str]]
Generate = Callable[[list[Conversation], int], list[str]]


@dataclass(frozen=True, slots=True)
class _Question:
    conversation: Conversation
    max_new_tokens: int
    answer: Future[str]


class Batcher:
    """Gathers questions and answers them in a worker thread, the only one that touches the model.

    A batch starts `gather` seconds after its first question; what comes while one runs is in the next.

    Args:
        generate: (conversations, max_new_tokens) → their answers, in order.
        gather: seconds.
        largest: questions of one batch.
    """

    def __init__(self, generate: Generate, *, gather: float = 0.005, largest: int = 64) -> None:
        self._generate = generate
        self._gather = gather
        self._largest = largest
        self._waiting: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None

    def submit(self, conversation: Conversation, max_new_tokens: int) -> Future[str]:
        """The answer to come; of a question cancelled before its batch starts, none."""
        question = _Question(conversation, max_new_tokens, Future())
        with self._lock:
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="rm-gallery-model", daemon=True)
                self._worker.start()
            self._waiting.put(question)
        return question.answer

    def close(self) -> None:
        """End the worker once it has answered what it was asked."""
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is not None:
                self._waiting.put(None)
        if worker is not None:
            worker.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, ended = self._batch(first)
            # one call has one length
            for length in sorted({question.max_new_tokens for question in batch}):
                self._answer([question for question in batch if question.max_new_tokens == length], length)
            if ended:
                return

    def _batch(self, first: _Question) -> tuple[list[_Question], bool]:
        """The questions to answer now, and whether the end was asked for."""
        batch = [first]
        start = time.monotonic()
        while len(batch) < self._largest:
            try:
                following = self._waiting.get(timeout=max(0.0, start + self._gather - time.monotonic()))
            except queue.Empty:
                break
            if following is None:
                return batch, True
            batch.append(following)
        return batch, False

    def _answer(self, batch: list[_Question], length: int) -> None:
        batch = [question for question in batch if question.answer.set_running_or_notify_cancel()]
        if batch:
            self._generate_for(batch, length)

    def _generate_for(self, batch: list[_Question], length: int) -> None:
        try:
            answers = self._generate([question.conversation for question in batch], length)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked; the worker goes on
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:  # one of them may be to blame, or all together too large
                for question in batch:
                    self._generate_for([question], length)
            return
        for question, answer in zip(batch, answers, strict=True):
            question.answer.set_result(answer)
