"""`Batcher`: questions that come one by one, answered in batches by a model in this process."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

A = TypeVar("A")


@dataclass(frozen=True)
class _Question(Generic[A]):
    question: Any
    how: Hashable
    answer: Future[A]


class Batcher(Generic[A]):
    """Gathers questions and answers them in a worker thread, the only one that touches the model.

    A batch starts `gather` seconds after its first question; what comes while one runs is in the next.

    Args:
        run: (questions, how) → their answers, in order; questions that are asked in another way (`how`) are another
            call.
        gather: seconds.
        largest: questions of one batch.
    """

    def __init__(
        self, run: Callable[[list[Any], Any], list[A]], *, gather: float = 0.005, largest: int = 64
    ) -> None:
        self._run = run
        self._gather = gather
        self._largest = largest
        self._waiting: queue.SimpleQueue[_Question[A] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None

    def submit(self, question: Any, how: Hashable) -> Future[A]:
        """The answer to come; of a question cancelled before its batch starts, none."""
        asked: _Question[A] = _Question(question, how, Future())
        with self._lock:
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="rm-gallery-model", daemon=True)
                self._worker.start()
            self._waiting.put(asked)
        return asked.answer

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
            for how in dict.fromkeys(asked.how for asked in batch):
                self._answer([asked for asked in batch if asked.how == how], how)
            if ended:
                return

    def _batch(self, first: _Question[A]) -> tuple[list[_Question[A]], bool]:
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

    def _answer(self, batch: list[_Question[A]], how: Hashable) -> None:
        batch = [asked for asked in batch if asked.answer.set_running_or_notify_cancel()]
        if batch:
            self._run_for(batch, how)

    def _run_for(self, batch: list[_Question[A]], how: Hashable) -> None:
        try:
            answers = self._run([asked.question for asked in batch], how)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked; the worker goes on
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:  # one of them may be to blame, or all together too large
                for asked in batch:
                    self._run_for([asked], how)
            return
        for asked, answer in zip(batch, answers, strict=True):
            asked.answer.set_result(answer)
