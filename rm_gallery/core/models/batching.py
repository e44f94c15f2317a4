"""`Batcher`: questions of many callers, answered in batches by the one thread that owns the model."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from rm_gallery.core.errors import RMGalleryError
from rm_gallery.core.models.fair import FairQueue

Q = TypeVar("Q")
R = TypeVar("R")
_Q = TypeVar("_Q", contravariant=True)
_R = TypeVar("_R")
_LONGEST_ASKED = 60
"""Seconds that a client is asked to wait, at most."""


class Full(RMGalleryError):
    """There is no room for these questions now. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Closing(RMGalleryError):
    """Nothing more is accepted."""


class Run(Protocol[_Q, _R]):
    """The model: answers questions of one kind, reporting each answer by its position as soon as it is there."""

    def __call__(
        self, kind: Hashable, questions: Sequence[_Q], done: Callable[[dict[int, _R]], None], /
    ) -> None: ...


@dataclass(eq=False)
class Ticket(Generic[R]):
    """The questions of one request. `answers` comes when all of them are answered, in their order."""

    client: str
    number: int
    size: int
    answers: Future[list[R]] = field(default_factory=Future)
    _given: dict[int, R] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answers.set_running_or_notify_cancel()  # whoever waits may leave; the answer is set all the same

    def give(self, position: int, answer: R) -> bool:
        """Whether that was the last."""
        self._given[position] = answer
        if len(self._given) < self.size:
            return False
        self.answers.set_result([self._given[i] for i in range(self.size)])
        return True


@dataclass(frozen=True, eq=False)
class _Question(Generic[Q, R]):
    ticket: Ticket[R]
    position: int
    kind: Hashable
    content: Q


class Batcher(Generic[Q, R]):
    """Every accepted question is answered exactly once, unless its request is given up before.

    A batch holds what waits: it starts when the one before it has ended and no question has come for `gather` seconds,
    after four times that at the latest.

    A model that makes its own batches, and lets a question join the one that runs, is asked by several `threads`,
    with a question each (`most=1`).

    Args:
        run: the model. Where it raises, the questions it left are asked again in halves, so that one that cannot be
            answered takes no other with it.
        failed: (kind, error) → the answer to a question that cannot be answered.
        cost: of a question, in whatever unit `budget` is.
        most: questions of a batch.
        budget: cost of a batch; a question that costs more is alone.
        room: questions that wait, at most.
        volume: their cost, at most.
        gather: seconds.
        seen: is told the size of each batch.
        threads: that call `run`.
    """

    def __init__(
        self,
        run: Run[Q, R],
        *,
        failed: Callable[[Hashable, Exception], R],
        cost: Callable[[Q], float] = lambda _: 1,
        most: int = 64,
        budget: float = math.inf,
        room: float = 4096,
        volume: float = math.inf,
        gather: float = 0.002,
        seen: Callable[[int], None] = lambda _: None,
        threads: int = 1,
    ) -> None:
        self._run, self._failed, self._cost, self._seen = run, failed, cost, seen
        self._most, self._budget, self._room, self._volume = most, budget, room, volume
        self._gather = gather
        self._load = 0.0  # the cost of what waits
        self._waiting: FairQueue[_Question[Q, R]] = FairQueue()
        self._change = threading.Condition()
        self._numbers = itertools.count()
        self._threads = threads
        self._workers: list[threading.Thread] = []
        self._busy = 0
        self._closing = False
        self._rate = 0.0  # questions a second, lately

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    def submit(self, kind: Hashable, questions: Sequence[Q], *, client: str = "") -> Ticket[R]:
        """Accept all of the questions or none.

        Args:
            kind: questions of one kind can be answered together.
            client: whose they are; clients take turns.

        Raises:
            Full: there is no room for them.
            Closing: `close` has been called.
        """
        load = math.fsum(map(self._cost, questions))
        ticket: Ticket[R] = Ticket(client, next(self._numbers), len(questions))
        if not questions:
            ticket.answers.set_result([])
            return ticket
        with self._change:
            if self._closing:
                raise Closing("nothing more is accepted")
            too_many = len(self._waiting) + len(questions) > self._room
            if too_many or (self._waiting and self._load + load > self._volume):
                raise Full(
                    f"{len(self._waiting)} questions wait, and there is no room for {len(questions)} more now",
                    self._retry_after(),
                )
            if not self._workers:
                self._workers = [
                    threading.Thread(target=self._work, name="rm-gallery-model", daemon=True)
                    for _ in range(self._threads)
                ]
                for worker in self._workers:
                    worker.start()
            asked = [_Question(ticket, i, kind, content) for i, content in enumerate(questions)]
            self._waiting.put(client, ticket.number, asked)
            self._load += load
            self._change.notify(len(questions))
        return ticket

    def give_up(self, ticket: Ticket[R]) -> None:
        """Forget the questions of a request that still wait: nobody does for their answers any more."""
        with self._change:
            for question in self._waiting.drop(ticket.client, ticket.number):
                self._load -= self._cost(question.content)

    def close(self) -> None:
        """Accept nothing more, and return once all that was accepted is answered."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        for worker in self._workers:
            worker.join()

    def _retry_after(self) -> int:
        seconds = len(self._waiting) / self._rate if self._rate else 1
        return max(1, min(_LONGEST_ASKED, math.ceil(seconds)))

    # -- the worker

    def _work(self) -> None:
        while batch := self._next():
            started = time.perf_counter()
            self._seen(len(batch))
            for kind, group in _by_kind(batch):
                self._answer(kind, group)
            seconds = max(1e-6, time.perf_counter() - started)
            with self._change:
                rate = self._busy * len(batch) / seconds
                self._rate = 0.7 * self._rate + 0.3 * rate if self._rate else rate
                self._busy -= 1

    def _next(self) -> list[_Question[Q, R]]:
        """The questions to answer now; none at the end."""
        with self._change:
            while not self._settled():
                if self._closing:
                    return []
                self._change.wait()
            batch: list[_Question[Q, R]] = []
            load = 0.0
            while self._waiting and len(batch) < self._most:
                cost = self._cost(self._waiting.peek().content)
                if batch and load + cost > self._budget:
                    break
                load += cost
                batch.append(self._waiting.take())
            self._load -= load
            self._busy += 1
            return batch

    def _settled(self) -> bool:
        """Whether questions wait, once no more come, a few milliseconds later at most.

        After a batch too: whoever has just been answered asks again, and alone would be a batch of few.
        """
        latest = time.monotonic() + 4 * self._gather
        before = 0
        while before < len(self._waiting) < self._most and not self._closing and time.monotonic() < latest:
            before = len(self._waiting)
            self._change.wait(self._gather)
        return bool(self._waiting)

    def _answer(self, kind: Hashable, group: Sequence[_Question[Q, R]]) -> None:
        if not group:
            return
        left = dict(enumerate(group))

        def done(found: dict[int, R]) -> None:
            for i, answer in found.items():
                question = left.pop(i, None)
                if question is not None:
                    question.ticket.give(question.position, answer)

        try:
            self._run(kind, [question.content for question in group], done)
            if left:
                raise RuntimeError(f"{len(left)} of {len(group)} questions were left without an answer")
        except Exception as error:  # noqa: BLE001 - becomes the answer of whoever is to blame
            rest = list(left.values())
            if len(group) == 1:
                done({i: self._failed(kind, error) for i in left})
            elif len(rest) < len(group):
                self._answer(kind, rest)
            else:  # one of them may be to blame, or all together too large
                half = len(rest) // 2
                self._answer(kind, rest[:half])
                self._answer(kind, rest[half:])


def _by_kind(
    batch: Iterable[_Question[Q, R]],
) -> Iterable[tuple[Hashable, list[_Question[Q, R]]]]:
    groups: dict[Hashable, list[_Question[Q, R]]] = {}
    for question in batch:
        groups.setdefault(question.kind, []).append(question)
    return groups.items()
