"""Graders whose every answer is known, for tests of what is around them."""

from __future__ import annotations

import asyncio
import random

from rm_gallery.core.graders import BaseGrader, GraderError, GraderRank, GraderScore


class Length(BaseGrader):
    """The number of characters of `response`, after a moment; counts what it is asked in `asked`.

    Args:
        fails: response → how often it fails before it is graded, as a request that times out.
        dies_after: how many it grades before the process is "killed".
    """

    name = "length"
    required = ("response",)

    def __init__(self, *, fails=None, dies_after=None, jitter=None, kind="timeout") -> None:
        self._fails = dict(fails or {})
        self._dies_after = dies_after
        self._jitter = jitter
        self._kind = kind
        self._asked: list[str] = []
        self._at_once = self._most = 0

    @property
    def asked(self) -> list[str]:
        return self._asked

    @property
    def most_at_once(self) -> int:
        return self._most

    async def _grade(self, fields):
        response = fields["response"]
        if self._dies_after is not None and len(self._asked) >= self._dies_after:
            raise Killed
        self._asked.append(response)
        self._at_once += 1
        self._most = max(self._most, self._at_once)
        try:
            for _ in range(0 if self._jitter is None else self._jitter.randrange(4)):
                await asyncio.sleep(0)
        finally:
            self._at_once -= 1
        if self._fails.get(response, 0) > 0:
            self._fails[response] -= 1
            return GraderError(self.name, f"{response} came too late", {"kind": self._kind})
        return GraderScore(self.name, len(response), f"{len(response)} characters", {"of": response})


class Killed(BaseException):
    """What a kill is to a process, to a test in this one."""


class Preferring(BaseGrader):
    """Ranks two responses by the numbers they are, as a judge that can be noisy, biased or broken.

    Args:
        bias: added to what stands first.
        noise: standard deviation, of each verdict by itself.
        broken: pairs in the order shown that get no verdict.
    """

    name = "preferring"
    mode = "listwise"
    required = ("responses",)
    optional = None

    def __init__(self, *, bias=0.0, noise=0.0, tie=0.0, broken=(), seed=0) -> None:
        self._bias, self._noise, self._tie, self._broken = bias, noise, tie, set(broken)
        self._random = random.Random(seed)
        self.asked: list[tuple[str, str]] = []

    async def _grade(self, fields):
        first, second = fields["responses"]
        self.asked.append((first, second))
        if (first, second) in self._broken:
            return GraderError(self.name, "no legal verdict", {"kind": "unparsable"})
        gap = float(first) - float(second) + self._bias + self._random.gauss(0, self._noise)
        return GraderRank.of(self.name, [0, 0] if abs(gap) <= self._tie else [gap, 0])


class BothOrders(Preferring):
    """The same, and looks at both orders itself."""

    both_orders = True

    async def _grade(self, fields):
        first, second = fields["responses"]
        forward = await super()._grade({"responses": [first, second]})
        swapped = await super()._grade({"responses": [second, first]})
        orders, total = {}, 0.0
        for name, result, sign in (("forward", forward, 1), ("swapped", swapped, -1)):
            if isinstance(result, GraderError):
                orders[name] = {"verdict": None}
                continue
            verdict = {(1, 2): "A", (2, 1): "B", (1, 1): "tie"}[result.rank]
            own = {"A": "B", "B": "A", "tie": "tie"}[verdict] if name == "swapped" else verdict
            orders[name] = {"verdict": own}  # A is the first response in both
            total += sign * {"A": 1, "B": -1, "tie": 0}[verdict]
        if any(order["verdict"] is None for order in orders.values()):
            return GraderError(self.name, "no legal verdict", {"kind": "unparsable", "orders": orders})
        return GraderRank.of(self.name, [total, 0], orders=orders)
