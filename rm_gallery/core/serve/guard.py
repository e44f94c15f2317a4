"""What stands before every request: the key, the name it is addressed by, its size, the end of the service."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rm_gallery.core.serve.errors import UNAUTHORIZED, Refusal, shutting_down
from rm_gallery.core.serve.settings import Settings

OPEN = ("/", "/healthz")
"""Paths that need no key: the page, which asks for one, and what a load balancer asks."""
_DRAINED = 4
"""Bodies' worth of bytes that are read and thrown away, so that a client still hears why it was refused."""
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


class Gate:
    """Counts the requests that were let in, and lets none in once it is closed."""

    def __init__(self) -> None:
        self.closed = False
        self.inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def close(self) -> None:
        self.closed = True

    async def emptied(self) -> None:
        """Return once everyone inside has been answered."""
        await self._empty.wait()

    def enter(self) -> None:
        self.inside += 1
        self._empty.clear()

    def leave(self) -> None:
        self.inside -= 1
        if not self.inside:
            self._empty.set()


class Guard:
    """ASGI middleware. Whoever does not know the key gets one and the same answer, whatever the path and the body."""

    def __init__(self, app: ASGIApp, settings: Settings, gate: Gate) -> None:
        self.app = app
        self.settings = settings
        self.gate = gate
        self._held = 0  # bytes of the bodies that are read or answered
        self._key = (
            None if settings.api_key is None else _digest(settings.api_key.encode(errors="surrogateescape"))
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in _HEADERS.items() if name not in known),
                ]
                if self.gate.closed:  # the next request would meet a connection that is being closed
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            self._check(scope)
        except Refusal as refusal:
            await refusal.response()(scope, receive, sent)
            return
        if scope["method"] != "POST":
            await self.app(scope, receive, sent)
            return
        self.gate.enter()
        parts: list[bytes] = []
        try:
            await self._read(parts, scope, receive)
            await self.app(scope, _replayed(b"".join(parts), receive), sent)
        except Refusal as refusal:
            await refusal.response()(scope, receive, sent)
        finally:
            self._held -= sum(map(len, parts))
            self.gate.leave()

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._key is not None:
            given = headers.get("authorization")
            # a wrong key is refused at the open paths too
            if (given is not None or scope["path"] not in OPEN) and not self._knows(given):
                raise UNAUTHORIZED
        hosts = self.settings.hosts
        if hosts is not None and _name(headers.get("host", "")) not in hosts:
            raise Refusal(403, "this service is addressed as " + " or ".join(hosts))
        if self.gate.closed and scope["method"] == "POST":
            raise shutting_down()

    def _knows(self, given: str | None) -> bool:
        assert self._key is not None
        # digests have one length, and comparing them takes one time
        return hmac.compare_digest(_digest(_key(given or "")), self._key)

    async def _read(self, parts: list[bytes], scope: Scope, receive: Receive) -> None:
        """Read the body into `parts`. Raises `Refusal` where it is too large, too slow, or one too many."""
        most = self.settings.max_body
        too_large = Refusal(413, f"a body may have {most} bytes")
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > _DRAINED * most:
            raise too_large
        size = 0
        with anyio.move_on_after(self.settings.body_seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the client left")
                more = message.get("more_body", False)
                part = message.get("body", b"")
                size += len(part)
                if size <= most:
                    self._held += len(part)
                    parts.append(part)
                    if self._held > self.settings.max_text:
                        raise Refusal(429, "too many large requests are under way", retry_after=1)
                elif size > _DRAINED * most:
                    raise too_large
            if size > most:
                raise too_large
            return
        raise Refusal(408, f"the body did not come within {self.settings.body_seconds:g} seconds")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` with a body that has been read already; what comes after it is the client leaving."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _key(given: str) -> bytes:
    """The key of an Authorization header: a bearer token, or the password of Basic, which a URL can carry."""
    scheme, _, token = given.partition(" ")
    sent = token.strip().encode("latin-1")  # as a header's bytes are read
    if scheme.lower() == "bearer":
        return sent
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(sent, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
