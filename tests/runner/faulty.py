"""An endpoint that fails a share of its requests, and knows which items it has answered and how often."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

from tests.endpoint import Body, dropped, hang, status, truncated

KINDS = {"server", "rate_limited", "connection", "timeout", "truncated"}
"""What a `GraderError` can be of, one for each fault."""

LATENCY = 0.02
"""Seconds that the model behind the endpoint thinks."""


class Faults:
    """A script for `Endpoint`.

    Args:
        share: of the requests that fail, each of the five faults as often.
        seconds: how long a hang is.

    Attributes:
        answers: item → how often it met no fault. What is under way at a kill counts too: it is asked again.
        repeats: generation → requests for items that had been answered before.
        generation: of the client; whoever kills it counts up.
    """

    def __init__(self, *, share: float, seconds: float, seed: int = 0) -> None:
        self.share = share
        self.answers: Counter[int] = Counter()
        self.repeats: Counter[int] = Counter()
        self.generation = 0
        self._random = random.Random(seed)
        self._faults = [
            status(500),
            # what a server asks for: soon
            status(429, headers={"Retry-After": "0.05"}),
            dropped(),
            hang(seconds),
            truncated(),
        ]

    def __call__(self, number: int, body: Body):
        if self._random.random() < self.share:
            return self._random.choice(self._faults)
        item = item_of(body)
        self.repeats[self.generation] += self.answers[item] > 0
        self.answers[item] += 1
        return hang(LATENCY)  # the answer, after a moment in which a kill can come


def item_of(body: Body) -> int:
    """The item that a request is about."""
    return int(re.search(r"item (\d+)", body["messages"][-1]["content"])[1])


def answer(body: Body) -> str:
    """The score that the model behind the endpoint gives an item."""
    return json.dumps({"reason": "So.", "score": expected(item_of(body))})


def expected(item: int) -> int:
    return item * 7 % 11
