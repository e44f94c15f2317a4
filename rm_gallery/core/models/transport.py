"""Requests to an endpoint: a limit on those under way, retries, and one sentence for what remains undone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.chat import ChatError, Kind
from rm_gallery.core.models.retry import RETRIED, Backoff, retry_after
from rm_gallery.core.models.wire import Completion, Refusal

if TYPE_CHECKING:  # an eighth of a second, with the first model
    import httpx

M = TypeVar("M", bound=BaseModel)
logger = logging.getLogger("rm_gallery.models")


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that gave no answer.

    `again`: another may; `asked`: not before so many seconds; `unsupported`: the field that the server does not know.
    Returned, not raised: a traceback out of the HTTP library would hold the request's headers, and with them the key.
    """

    kind: Kind
    said: str
    status: int | None = None
    again: bool = False
    asked: float | None = None
    unsupported: str | None = None
    cause: Exception | None = None


@dataclass
class _Session:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    places: asyncio.Semaphore


class Transport(Generic[M]):
    """Posts to `{base_url}{path}`, as a subclass says. Its coroutines run on the background loop only.

    Attributes:
        answer: what the body of a success is.
        server, content: what this server and its answers are called in messages.
        key_name: where the key may come from.

    Args:
        timeout: seconds for one attempt, from connecting to the last byte.
        max_retries: attempts after the first.
        max_concurrency: requests under way at once. A question that waits for its next attempt keeps its place, so
            that an endpoint that refuses is asked less.
    """

    path: ClassVar[str]
    answer: type[M]
    server: ClassVar[str]
    content: ClassVar[str]
    key_name: ClassVar[str]

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        timeout: float,
        max_retries: int,
        max_concurrency: int,
        backoff: Backoff,
    ) -> None:
        self.base_url = _checked_url(base_url, self.path)
        self._key = SecretStr(_checked_key(api_key))
        self.timeout = timeout
        self.max_retries = max_retries
        self.max_concurrency = max_concurrency
        self.backoff = backoff
        self.requests = 0
        self.retries = 0
        self._session: _Session | None = None

    async def post(self, payload: Mapping[str, Any]) -> tuple[M | Failure, int]:
        """The answer, or what the last attempt came to, with the number of attempts."""
        body = json.dumps(payload).encode()  # in ASCII, which any text can be written in
        retry = 0
        async with self._here().places:
            while True:
                self.requests += 1
                result = await self._attempt(self._here().client, body)  # another one after `close`
                if not isinstance(result, Failure) or not result.again or retry == self.max_retries:
                    return result, retry + 1
                delay = self.backoff.delay(retry, result.asked)
                retry += 1
                self.retries += 1
                logger.info("%s %s; retry %d in %.2f s", self.base_url, result.said, retry, delay)
                await asyncio.sleep(delay)

    def error(self, failure: Failure, attempts: int) -> ChatError:
        """The sentence for a failure."""
        after = f" ({attempts} attempts)" if attempts > 1 else ""
        error = ChatError(
            f"{self.base_url} {failure.said}{after}",
            kind=failure.kind,
            status=failure.status,
            attempts=attempts,
        )
        error.__cause__ = failure.cause
        return error

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.client.aclose()

    async def _attempt(self, client: httpx.AsyncClient, body: bytes) -> M | Failure:
        import anyio
        import httpx

        try:
            with anyio.fail_after(self.timeout):
                response = await client.post(f"{self.base_url}{self.path}", content=body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return self._lost("unreachable", f"could not be reached: {error}", error)
        except (httpx.TimeoutException, TimeoutError) as error:
            return self._lost("timeout", f"did not answer within {self.timeout:g} s", error)
        except httpx.DecodingError as error:
            return self._lost("truncated", f"sent an answer that cannot be unpacked: {error}", error)
        except httpx.HTTPError as error:
            return self._lost("connection", f"broke the connection off: {error}", error)
        if response.status_code != 200:
            return self._refused(response.status_code, self._without_key(response.content), response.headers)
        return self._read(self._without_key(response.content))

    def _read(self, body: bytes) -> M | Failure:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            if body.lstrip()[:1] in (b"{", b""):
                said = f"sent JSON that breaks off after {len(body)} bytes"
                return self._lost("truncated", said, error)
            said = f"is no {self.server}: it sent {_start(body)}; does it end in /v1?"
            return Failure("malformed", said, 200)
        if isinstance(content, dict) and "choices" not in content and isinstance(content.get("error"), dict):
            # gateways that have sent their status before the model's own server failed
            code = content["error"].get("code")
            return self._refused(code if isinstance(code, int) and 400 <= code < 600 else 502, body, {})
        try:
            return self.answer.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            return Failure(
                "malformed", f"sent no {self.content}: {place or 'the answer'}: {first['msg']}", 200
            )

    def _lost(self, kind: Kind, said: str, error: Exception) -> Failure:
        causes: dict[str, type[Exception]] = {"timeout": TimeoutError, "truncated": ValueError}
        cause = causes.get(kind, ConnectionError)(f"{type(error).__name__}: {error}")
        return Failure(kind, said.rstrip(": "), again=True, cause=cause)

    def _refused(self, status: int, body: bytes, headers: Mapping[str, str]) -> Failure:
        refusal = Refusal.read(body)
        kind = refusal.kind(status)
        words = refusal.message
        said = {
            "key": f"refused the API key (401): check api_key, or {self.key_name}{'' if self._key else ' (none was given)'}",
            "quota": f"says that the account has no quota left ({status}): {words}",
            "overlong": f"says that the question is too long for the model ({status}): {words}",
        }.get(kind, f"answered {status}" + (f": {words}" if words else ""))
        again = status in RETRIED and kind not in ("quota", "overlong")
        asked = retry_after(headers) if again else None
        unsupported = refusal.param if refusal.code == "unsupported_parameter" else None
        return Failure(kind, said, status, again=again, asked=asked, unsupported=unsupported)

    def _without_key(self, body: bytes) -> bytes:
        """Some servers repeat the key that they refuse. Taken out before anything is cut to its length."""
        key = self._key.get_secret_value().encode()
        return body.replace(key, "…".encode()) if len(key) >= 8 and key in body else body

    def _here(self) -> _Session:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.loop is not loop:
            import httpx

            key = self._key.get_secret_value()
            client = httpx.AsyncClient(
                headers={
                    "Content-Type": "application/json",
                    **({"Authorization": f"Bearer {key}"} if key else {}),
                },
                timeout=httpx.Timeout(None, connect=min(10.0, self.timeout)),  # the rest is the attempt's
                # the semaphore is the limit: a full pool, of which a cancelled request may take a place with it for
                # good (httpcore's issue 1093), would come to a standstill
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.max_concurrency),
            )
            self._session = _Session(loop, client, asyncio.Semaphore(self.max_concurrency))
        return self._session


class ChatTransport(Transport[Completion]):
    """To an OpenAI-compatible endpoint."""

    path = "/chat/completions"
    answer = Completion
    server = "OpenAI-compatible endpoint"
    content = "chat completion"
    key_name = "OPENAI_API_KEY"


def _checked_url(base_url: str, path: str) -> str:
    if any(character in base_url for character in "@?#"):  # it is named in messages and in logs
        raise ConfigError("base_url holds a user, a password or a query: give the key as api_key")
    import httpx

    try:
        parts = urlsplit(
            base_url
        )  # refuses half an IPv6 address, which httpx quotes; httpx, a host that is no name
        usable = parts.scheme in ("http", "https") and bool(httpx.URL(base_url).host) and " " not in base_url
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise ConfigError(f"base_url is {base_url!r}, expected something like http://127.0.0.1:8000/v1")
    return base_url.rstrip("/").removesuffix(path)


def _checked_key(api_key: str | None) -> str:
    key = (api_key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        # the HTTP library would say so with the key in the message
        raise ConfigError("the API key holds a character that no HTTP header can carry: is it cut out whole?")
    return key


def _start(body: bytes) -> str:
    return repr(body[:60].decode(errors="replace"))
