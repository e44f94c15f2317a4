"""An OpenAI-compatible endpoint on the loopback: a real HTTP server, whose behaviour is scripted request by request.

with Endpoint(script=[status(500), truncated(), hang(5)]) as endpoint:
    OpenAIChatModel("judge", endpoint.base_url, timeout=0.2).chat([...])
    assert endpoint.count == 4

The standard library's server is enough: a thread for each connection, and nothing between the test and the socket.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Token:
    """A token as the server reports it: what was written, its log-probability, and the alternatives'."""

    text: str
    logprob: float = -0.01
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Reply:
    """What the model behind the endpoint writes. With `tokens`, `text` may be left out."""

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish_reason: str = "stop"

    @property
    def written(self) -> str:
        return self.text or "".join(token.text for token in self.tokens)


class Exchange:
    """One request under way, and the ways to end it. Whoever ends it no longer counts as under way."""

    def __init__(self, endpoint: Endpoint, handler: _Handler, body: Body) -> None:
        self.endpoint = endpoint
        self.handler = handler
        self.body = body

    def send(self, status: int, content: bytes, headers: dict[str, str], *, promise: int = 0) -> None:
        """`promise`: bytes more than there are, before the connection is closed."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content) + promise}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.endpoint._ended()
        self.handler.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + content)
        self.handler.close_connection = promise > 0

    def json(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json", **(headers or {})}
        self.send(status, json.dumps(content).encode(), headers)

    def drop(self) -> None:
        """Close the connection without a word."""
        self.endpoint._ended()
        self.handler.connection.shutdown(socket.SHUT_RDWR)
        self.handler.close_connection = True


Behaviour = Callable[[Exchange], None]


def normal() -> Behaviour:
    """The model's answer."""
    return lambda exchange: exchange.json(200, exchange.endpoint.completion(exchange.body))


def status(
    http: int, /, *, message: str = "it is so", headers: dict[str, str] | None = None, **error: Any
) -> Behaviour:
    """A refusal, with `error`'s fields (`code`, `type`, `param`) and headers such as `Retry-After`."""
    return lambda exchange: exchange.json(http, {"error": {"message": message, **error}}, headers)


def sent(code: int, content: bytes, headers: dict[str, str] | None = None) -> Behaviour:
    """These very bytes."""
    return lambda exchange: exchange.send(code, content, headers or {})


def truncated() -> Behaviour:
    """Half of the answer's JSON, as if that were all."""

    def behave(exchange: Exchange) -> None:
        content = json.dumps(exchange.endpoint.completion(exchange.body)).encode()
        exchange.send(200, content[: len(content) // 2], {"Content-Type": "application/json"})

    return behave


def cut_off() -> Behaviour:
    """Half of the bytes that were promised, then the connection closes."""

    def behave(exchange: Exchange) -> None:
        content = json.dumps(exchange.endpoint.completion(exchange.body)).encode()
        half = content[: len(content) // 2]
        exchange.send(200, half, {"Content-Type": "application/json"}, promise=len(content) - len(half))

    return behave


def dropped() -> Behaviour:
    """The connection closes before any answer."""
    return Exchange.drop


def hang(seconds: float) -> Behaviour:
    """The answer comes late, or never where the client leaves or the server ends first."""

    def behave(exchange: Exchange) -> None:
        readable, _, _ = select.select(
            [exchange.handler.connection, exchange.endpoint._closing], [], [], seconds
        )
        if readable:
            exchange.drop()
        else:
            normal()(exchange)

    return behave


Script = Iterable[Behaviour] | Callable[[int, Body], Behaviour]


@dataclass
class Endpoint:
    """A server on a free port of 127.0.0.1, while in its `with` block.

    Args:
        answer: the model: (request) → what it writes; called once for each sample.
        script: what the first requests meet, in order of arrival, before all others are `normal`; or a function of a
            request's number and body, which decides for each. Called by one thread at a time.
        ignores_n: gives one sample, whatever `n` says.
        gives_logprobs: where they are asked for.
        api_key: what it asks for; None: nothing.
        usage: counts tokens (words, here).
        path: the one that it answers at.

    Attributes:
        requests: the bodies, in order of arrival.
        headers: of each, names in lower case.
        times: of arrival, in seconds of `time.monotonic`.
        most_at_once: requests that were under way together.
    """

    answer: Callable[[Body], Reply | str] = lambda body: body["messages"][-1]["content"]
    script: Any = ()
    ignores_n: bool = False
    gives_logprobs: bool = True
    api_key: str | None = None
    usage: bool = True
    path: str = "/v1/chat/completions"
    requests: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._at_once = 0
        self._script: Iterator[Behaviour] | None = None if callable(self.script) else iter(self.script)

    def __enter__(self) -> Endpoint:
        self._closing, self._close = socket.socketpair()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.endpoint = self
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()  # whoever hangs sees it
        self._server.shutdown()
        self._server.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def count(self) -> int:
        """Requests so far."""
        return len(self.requests)

    @property
    def at_once(self) -> int:
        """Requests that are under way."""
        return self._at_once

    def completion(self, body: Body) -> Body:
        """What a server answers to this request."""
        replies = [self.answer(body) for _ in range(1 if self.ignores_n else body.get("n", 1))]
        replies = [Reply(reply) if isinstance(reply, str) else reply for reply in replies]
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": reply.written},
                "finish_reason": reply.finish_reason,
                "logprobs": self._logprobs(body, reply),
            }
            for index, reply in enumerate(replies)
        ]
        asked = sum(words(message["content"]) for message in body["messages"])
        written = sum(words(reply.written) for reply in replies)
        usage = {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}
        made = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": choices,
        }
        return {**made, "usage": usage} if self.usage else made

    def _logprobs(self, body: Body, reply: Reply) -> Body | None:
        if not self.gives_logprobs or not body.get("logprobs"):
            return None
        tokens = reply.tokens or (Token(reply.text),)
        return {
            "content": [_reported(token, body.get("top_logprobs", 0)) for token in tokens],
            "refusal": None,
        }

    def _started(self, handler: _Handler, body: Body) -> Behaviour:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.times.append(time.monotonic())
            if self.api_key is not None and handler.headers.get("Authorization") != f"Bearer {self.api_key}":
                return status(401, message=f"wrong key: {handler.headers.get('Authorization')}")
            if self._script is None:
                chosen: Behaviour = self.script(number, body)
                return chosen
            return next(self._script, normal())

    def _ended(self) -> None:
        # before the last byte leaves: the client may ask again before this thread goes on
        with self._lock:
            self._at_once -= 1


def words(text: str) -> int:
    """How this server counts tokens."""
    return len(text.split())


def _reported(token: Token, top: int) -> Body:
    def entry(text: str, logprob: float) -> Body:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    alternatives: Sequence[tuple[str, float]] = sorted(token.top, key=lambda pair: -pair[1])[:top]
    return {**entry(token.text, token.logprob), "top_logprobs": [entry(*pair) for pair in alternatives]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512  # all clients of a test connect at once
    endpoint: Endpoint

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        endpoint = self.server.endpoint
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        exchange = Exchange(endpoint, self, body)
        behave = endpoint._started(self, body)
        if self.path != endpoint.path:
            behave = status(404, message=f"there is nothing at {self.path}")
        behave(exchange)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
