"""A judge that answers when it is told to: what happens meanwhile can be looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rm_gallery.core.judge import Answer
from rm_gallery.core.judge.subject import Subject


class HeldJudge:
    """Waits for `release` before each batch. `held` is the size of its first, `seen` are the questions it answered."""

    modes = ("expected", "greedy")
    fingerprint = "held"

    def __init__(self) -> None:
        self.release = threading.Event()
        self.started = threading.Event()
        self.held = 0
        self.seen: list[str] = []

    def answer(self, task, conversations, *, mode, max_new_tokens, samples=8, seed=0, done=lambda _: None):
        self.held = self.held or len(conversations)
        self.started.set()
        assert self.release.wait(30)
        self.seen += [conversation[0]["content"] for conversation in conversations]
        answers = [Answer(3, "<score>3</score>") for _ in conversations]
        done(dict(enumerate(answers)))
        return answers

    @property
    def subject(self) -> Subject:
        return Subject("held", judge=self)


def ask(text: str, count: int = 1) -> dict:
    return {"items": [{"query": text, "response": "r"}] * count}


def until(condition: Callable[[], bool]) -> None:
    """Wait for it, twenty seconds at most."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
