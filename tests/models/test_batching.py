"""Every accepted question is answered exactly once, in its place, whatever comes when; clients take turns."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.models.batching import Batcher, Closing, Full
from rm_gallery.core.models.fair import FairQueue

# a question: its name, its cost, and whether it cannot be answered
QUESTIONS = st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9), st.booleans()), min_size=1, max_size=9)
REQUESTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y"]), QUESTIONS), max_size=12)


class Model:
    """Answers (kind, question), and fails as a whole where a question of the batch is poisoned.

    `reports`: the share of a batch that is reported before it fails. `hold`: it waits for `release`.
    """

    def __init__(self, *, reports: float = 0.0, hold: bool = False) -> None:
        self.reports = reports
        self.calls: list[tuple[Hashable, list[Any]]] = []
        self.started = threading.Event()
        self.release = threading.Event()
        if not hold:
            self.release.set()

    def __call__(
        self, kind: Hashable, questions: Sequence[Any], done: Callable[[dict[int, Any]], None]
    ) -> None:
        self.calls.append((kind, list(questions)))
        self.started.set()
        assert self.release.wait(10)
        if any(poisoned for _, _, poisoned in questions):
            early = range(int(self.reports * len(questions)))
            done({i: (kind, questions[i]) for i in early if not questions[i][2]})
            raise RuntimeError("it failed")
        half = len(questions) // 2
        done({i: (kind, question) for i, question in enumerate(questions[:half])})
        done({half + i: (kind, question) for i, question in enumerate(questions[half:])})
        done({0: "twice"})  # what was answered stays answered


def batcher(model: Model, **options: Any) -> Batcher[Any, Any]:
    return Batcher(
        model,
        failed=lambda kind, error: ("failed", str(error)),
        **{"cost": lambda question: question[1], "gather": 0.0005, **options},
    )


def expected(kind: str, questions: list[Any]) -> list[Any]:
    return [("failed", "it failed") if question[2] else (kind, question) for question in questions]


@settings(max_examples=60)
@given(
    requests=REQUESTS,
    most=st.integers(1, 8),
    budget=st.integers(1, 20),
    reports=st.sampled_from([0.0, 0.5, 1.0]),
    threads=st.integers(1, 4),
    pauses=st.randoms(use_true_random=False),
)
def test_every_question_is_answered_once_and_in_its_place(requests, most, budget, reports, threads, pauses):
    model = Model(reports=reports)
    asked = batcher(model, most=most, budget=budget, threads=threads)
    tickets = []
    for client, kind, questions in requests:
        tickets.append((kind, questions, asked.submit(kind, questions, client=client)))
        if pauses.random() < 0.3:
            time.sleep(0.001)
    asked.close()
    for kind, questions, ticket in tickets:
        assert ticket.answers.result(timeout=0) == expected(kind, questions)
    for _, questions in model.calls:
        assert len(questions) <= most
        assert len(questions) == 1 or sum(cost for _, cost, _ in questions) <= budget
    # without a failure nothing is asked twice
    if not any(poisoned for _, _, questions in requests for _, _, poisoned in questions):
        given_to_it = Counter((kind, q) for kind, questions in model.calls for q in questions)
        assert given_to_it == Counter((kind, q) for _, kind, questions in requests for q in questions)


@pytest.mark.parametrize("seed", range(4))
def test_many_threads_and_a_close_between_them(seed):
    """What was accepted is answered, what came after the close was refused, and there is nothing third."""
    asked, draw = batcher(Model(), most=7), random.Random(seed)
    answered, refused = [], []

    def client(name: str, sizes: list[int], pauses: list[float]) -> None:
        for size, pause in zip(sizes, pauses, strict=True):
            questions = [(draw_number, 1, False) for draw_number in range(size)]
            try:
                ticket = asked.submit("x", questions, client=name)
            except Closing:
                refused.append(size)
                continue
            answered.append(ticket.answers.result(timeout=10) == expected("x", questions))
            time.sleep(pause)

    threads = [
        threading.Thread(
            target=client,
            args=(
                str(i),
                [draw.randint(1, 9) for _ in range(20)],
                [draw.random() * 0.002 for _ in range(20)],
            ),
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    asked.close()
    for thread in threads:
        thread.join(20)
    assert len(answered) + len(refused) == 8 * 20
    assert all(answered)
    assert answered
    assert refused


def test_what_comes_while_a_batch_runs_is_the_next_batch():
    model = Model(hold=True)
    asked = batcher(model)
    first = asked.submit("x", [(0, 1, False)])
    assert model.started.wait(10)
    later = [asked.submit("x", [(i, 1, False)]) for i in range(1, 6)]
    assert asked.waiting == 5
    model.release.set()
    asked.close()
    assert [len(questions) for _, questions in model.calls] == [1, 5]
    assert all(ticket.answers.done() for ticket in (first, *later))


def test_a_model_that_makes_its_own_batches_is_asked_by_several_threads():
    together = threading.Barrier(4)  # broken, and so an error, unless four are inside at once

    def model(kind: Hashable, questions: Sequence[Any], done: Callable[[dict[int, Any]], None]) -> None:
        together.wait(10)
        done(dict(enumerate(questions)))

    asked: Batcher[Any, Any] = Batcher(model, failed=lambda kind, error: error, most=1, threads=4)
    tickets = [asked.submit("x", ["a", "b", "c"]), asked.submit("x", ["d"])]
    assert [ticket.answers.result(timeout=10) for ticket in tickets] == [["a", "b", "c"], ["d"]]
    asked.close()


def test_a_batch_starts_at_once_where_nothing_else_comes():
    asked = batcher(Model(), gather=0.002)
    asked.submit("x", [(0, 1, False)]).answers.result(timeout=10)  # the thread is there now
    started = time.perf_counter()
    for i in range(10):
        asked.submit("x", [(i, 1, False)]).answers.result(timeout=10)
    assert (time.perf_counter() - started) / 10 < 0.03
    asked.close()


@given(requests=REQUESTS, room=st.integers(0, 20))
@settings(max_examples=40)
def test_no_more_wait_than_there_is_room_for(requests, room):
    model = Model(hold=True)
    asked = batcher(model, room=max(1, room))
    blocker = asked.submit("x", [(0, 1, False)])
    assert model.started.wait(10)
    accepted, refused = [], []
    for client, kind, questions in requests:
        before = asked.waiting
        try:
            accepted.append((kind, questions, asked.submit(kind, questions, client=client)))
        except Full as error:
            refused.append((before, len(questions), error.retry_after))
            assert asked.waiting == before, "all or none"
        assert asked.waiting <= max(1, room)
    assert all(before + new > max(1, room) and 1 <= wait <= 60 for before, new, wait in refused)
    model.release.set()
    asked.close()
    assert blocker.answers.done()
    for kind, questions, ticket in accepted:
        assert ticket.answers.result(timeout=0) == expected(kind, questions)


def test_what_waits_has_a_volume_too():
    model = Model(hold=True)
    asked = batcher(model, volume=10)
    asked.submit("x", [(0, 1, False)])
    assert model.started.wait(10)
    huge = asked.submit("x", [(1, 50, False)])  # alone it may wait, or it never could
    with pytest.raises(Full):
        asked.submit("x", [(2, 1, False)])
    asked.give_up(huge)
    held = [asked.submit("x", [(3, 5, False)]) for _ in range(2)]
    with pytest.raises(Full):
        asked.submit("x", [(4, 1, False)])
    model.release.set()
    for ticket in held:
        ticket.answers.result(timeout=10)
    asked.submit("x", [(5, 10, False)]).answers.result(timeout=10)  # what was taken made room
    asked.close()


def test_how_long_to_wait_follows_how_fast_questions_are_answered():
    def slow(kind: Hashable, questions: Sequence[Any], done: Callable[[dict[int, Any]], None]) -> None:
        time.sleep(0.02 * len(questions))  # fifty a second
        done(dict(enumerate(questions)))

    asked: Batcher[Any, Any] = Batcher(slow, failed=lambda kind, error: None, most=2, room=400)
    asked.submit("x", range(4)).answers.result(timeout=10)
    ticket = asked.submit("x", range(300))
    with pytest.raises(Full) as caught:
        asked.submit("x", range(200))
    assert 3 <= caught.value.retry_after <= 12  # 300 of them are six seconds
    asked.give_up(ticket)
    asked.close()


def test_what_is_given_up_is_not_asked_and_takes_no_place():
    model = Model(hold=True)
    asked = batcher(model, room=4)
    asked.submit("x", [(0, 1, False)])
    assert model.started.wait(10)
    left, stays = asked.submit("x", [(1, 1, False)] * 3), asked.submit("x", [(2, 1, False)])
    asked.give_up(left)
    assert asked.waiting == 1
    more = asked.submit("x", [(3, 1, False)] * 3)
    model.release.set()
    asked.close()
    names = [name for _, questions in model.calls for name, _, _ in questions]
    assert names == [0, 2, 3, 3, 3]
    assert all(ticket.answers.done() for ticket in (stays, more))
    assert not left.answers.done()


def test_one_that_cannot_be_answered_takes_no_other_with_it():
    model = Model()
    asked = batcher(model)
    questions = [(i, 1, i == 5) for i in range(16)]
    assert asked.submit("x", questions).answers.result(timeout=10) == expected("x", questions)
    asked.close()
    assert len(model.calls) <= 2 * 5  # in halves, not one by one


def test_a_model_that_leaves_questions_out_is_no_silent_loss():
    def forgetful(kind: Hashable, questions: Sequence[Any], done: Callable[[dict[int, Any]], None]) -> None:
        done(dict.fromkeys(range(len(questions) - 1), "said"))

    asked: Batcher[Any, Any] = Batcher(forgetful, failed=lambda kind, error: str(error))
    answers = asked.submit("x", ["a", "b"]).answers.result(timeout=10)
    assert answers[0] == "said"
    assert "left without an answer" in answers[1]
    asked.close()


def test_nothing_asked_is_answered_at_once():
    asked = batcher(Model(hold=True))
    assert asked.submit("x", []).answers.result(timeout=0) == []
    asked.close()


# -- turns


@given(
    puts=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 6)), min_size=1, max_size=10),
)
def test_clients_take_turns_and_so_do_their_requests(puts):
    queue: FairQueue[tuple[str, int, int]] = FairQueue()
    for request, (client, size) in enumerate(puts):
        queue.put(client, request, [(client, request, i) for i in range(size)])
    left = Counter()
    for client, size in puts:
        left[client] += size
    assert len(queue) == left.total()
    taken: Counter[str] = Counter()
    places: dict[int, int] = {}
    while len(queue):
        peeked = queue.peek()
        client, request, place = queue.take()
        assert peeked == (client, request, place)
        assert place == places.get(request, 0), "within a request the order is kept"
        places[request] = place + 1
        # nobody who still waits is more than one turn behind
        taken[client] += 1
        left[client] -= 1
        assert all(taken[client] - taken[other] <= 1 for other in left if left[other] and other != client)
    assert sum(places.values()) == sum(size for _, size in puts)


def test_a_large_request_does_not_hold_up_a_small_one():
    queue: FairQueue[str] = FairQueue()
    queue.put("one", 0, ["big"] * 1000)
    queue.put("one", 1, ["small"])
    queue.put("another", 2, ["other"])
    assert [queue.take() for _ in range(4)] == ["big", "other", "small", "big"]
    assert queue.drop("one", 0) == ["big"] * 998
    assert len(queue) == 0
    assert queue.drop("one", 0) == []
