"""What Prometheus is told: requests, their seconds, the queue, batches, tokens, and answers without a verdict."""

from __future__ import annotations

import time
from collections.abc import Set

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Of one app, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "rmg_requests",
            "Requests by path, method and status.",
            ["path", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "rmg_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.waiting = Gauge("rmg_queue_length", "Questions that wait for the model.", registry=registry)
        self.batches = Histogram(
            "rmg_batch_size", "Questions given to the model at once.", buckets=_SIZES, registry=registry
        )
        self.tokens = Counter(
            "rmg_tokens", "Tokens by kind: prompt or completion.", ["kind"], registry=registry
        )
        self.problems = Counter(
            "rmg_problems",
            "Questions without an answer by kind: overlong, unparsable, unfinished, failed.",
            ["kind"],
            registry=registry,
        )

    def count_tokens(self, kind: str, number: int) -> None:
        self.tokens.labels(kind).inc(number)

    def count_problem(self, problem: str) -> None:
        """By its first word; nothing where there is none."""
        if problem:
            self.problems.labels(problem.partition(":")[0]).inc()


class Measured:
    """ASGI middleware: counts every request with the status it got, whoever gave it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, known: Set[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # unknown paths and methods are one each: a client may make up any number of them
        path = scope["path"] if scope["path"] in self.known else "other"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "OPTIONS", "POST") else "other"
        status = 500
        started = time.perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            self.metrics.requests.labels(path, method, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)
