"""`ServiceClient`: scores from a judge that `rmg serve` runs.

client = ServiceClient("http://127.0.0.1:8000")
[one] = client.score([{"query": "What is 2 + 3?", "response": "5"}])
one.score, one.problem
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models import background
from rm_gallery.core.models.chat import ChatError
from rm_gallery.core.models.retry import Backoff
from rm_gallery.core.models.transport import Failure, Transport
from rm_gallery.core.rewards.scored import Scored

KEY = "RMG_API_KEY"
"""The environment variable with the service's key."""

Item = Mapping[str, Any]
"""`query`, a text, or `messages`, a conversation; and `response`."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    score: float | None = Field(allow_inf_nan=False)
    verdict: Any = None
    problem: str = ""


class _Results(BaseModel):
    model_config = ConfigDict(extra="ignore")

    results: list[_Result]


class _Transport(Transport[_Results]):
    path = "/v1/score"
    answer = _Results
    server = "service of rmg serve"
    content = "list of scores"
    key_name = KEY


class ServiceClient:
    """Asks `POST {url}/v1/score`. May be used from any thread and any event loop, and from several at once.

    Args:
        url: of the service, with or without `/v1`.
        api_key: None: `RMG_API_KEY`, else none is sent. It is shown nowhere.
        timeout: seconds for one attempt.
        max_retries: attempts after the first: on a lost connection, a timeout, 408, 429, 500, 502, 503, 504 and 529.
        max_concurrency: requests under way at once.
        batch_size: items of one request; where the service refuses it, each half is a request of its own, so that one
            bad item fails alone.
        backoff: the waits between attempts.

    Raises:
        ConfigError: an argument that cannot be.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        max_retries: int = 8,
        max_concurrency: int = 16,
        batch_size: int = 64,
        backoff: Backoff | None = None,
    ) -> None:
        if timeout <= 0 or max_retries < 0 or max_concurrency < 1 or batch_size < 1:
            raise ConfigError(
                "timeout must be more than 0, max_retries at least 0, the other numbers at least 1"
            )
        self.batch_size = batch_size
        self._transport = _Transport(
            url.rstrip("/").removesuffix("/v1"),
            api_key if api_key is not None else os.environ.get(KEY),
            timeout=timeout,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            backoff=backoff or Backoff(),
        )

    def __repr__(self) -> str:
        return f"ServiceClient({self.url!r})"

    @property
    def url(self) -> str:
        return self._transport.base_url

    async def ascore(self, items: Sequence[Item]) -> list[Scored]:
        """Score the items, in order. What could not be scored has a `problem`, and none raises."""
        return await background.hop(self._score(items))

    def score(self, items: Sequence[Item]) -> list[Scored]:
        """`ascore` for code that does not await."""
        return background.wait(self._score(items))

    def close(self) -> None:
        """Close the connections. The next call opens them again."""
        background.wait(self._transport.close())

    async def _score(self, items: Sequence[Item]) -> list[Scored]:
        starts = range(0, len(items), self.batch_size)
        batches = await asyncio.gather(*(self._batch(items[i : i + self.batch_size]) for i in starts))
        return [scored for batch in batches for scored in batch]

    async def _batch(self, items: Sequence[Item]) -> list[Scored]:
        result, attempts = await self._transport.post({"items": [dict(item) for item in items]})
        if isinstance(result, Failure):
            # too many, or one of them is to blame
            if result.status in (413, 422) and len(items) > 1:
                half = len(items) // 2
                halves = await asyncio.gather(self._batch(items[:half]), self._batch(items[half:]))
                return [*halves[0], *halves[1]]
            return [_failed(self._transport.error(result, attempts))] * len(items)
        if len(result.results) != len(items):
            said = f"{self.url} gave {len(result.results)} scores for {len(items)} items"
            return [_failed(ChatError(said, kind="malformed"))] * len(items)
        return [
            Scored(
                one.score,
                one.verdict,
                one.problem or ("" if one.score is not None else "failed: no reason given"),
            )
            for one in result.results
        ]


def _failed(error: ChatError) -> Scored:
    return Scored(None, None, f"{'overlong' if error.kind == 'overlong' else 'failed'}: {error}")
