"""What a chat model is asked and gives back, whether it sits behind an endpoint or in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from rm_gallery.core.errors import RMGalleryError

if TYPE_CHECKING:  # both are heavier than this module
    from pydantic import BaseModel

    from rm_gallery.core.tasks.base import Task

Messages = Sequence[Mapping[str, Any]]

Kind = Literal[
    "unreachable",
    "connection",
    "timeout",
    "truncated",
    "malformed",
    "rate_limited",
    "server",
    "quota",
    "key",
    "forbidden",
    "not_found",
    "overlong",
    "refused",
    "invalid_output",
    "local",
]


class ChatError(RMGalleryError):
    """A question that a chat model did not answer. The message is one sentence and never holds the API key.

    Attributes:
        kind: what went wrong. `unreachable` (no connection), `connection` (lost on the way), `timeout`, `truncated`
            (JSON that breaks off), `rate_limited` and `server` are asked again before they are raised; `malformed` (no
            chat completion), `quota`, `key`, `forbidden`, `not_found`, `overlong` (longer than the model's context),
            `refused` (another 4xx), `invalid_output` (not of the asked structure) and `local` (a model in this
            process failed) are not.
        status: of HTTP, where there was an answer.
        attempts: how many requests were made.
        text: what the model wrote, where it wrote something (`invalid_output`).
    """

    def __init__(
        self,
        message: str,
        *,
        kind: Kind = "refused",
        status: int | None = None,
        attempts: int = 1,
        text: str = "",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.attempts = attempts
        self.text = text


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was written, with the natural logarithm of its probability.

    `top` holds the most probable tokens at this place, with theirs; the written one may be among them or not.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Price(NamedTuple):
    """What a million tokens cost, in whatever currency: of the question and of the answer."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """The answer to one question; of `n` samples all, as many as the server gave.

    Attributes:
        texts: what was written, one for each sample.
        finish_reasons: why each ended, in the server's words (`stop`, `length`, …); "" where it does not say.
        parsed: each text as the pydantic model that was asked for; empty where none was.
        logprobs: of each sample its tokens, or None where the server gave none.
        prompt_tokens, completion_tokens: as the server counted them, None where it does not say. Attempts that
            failed are not in them.
        cost: of these tokens by the model's price, None where price or counts are unknown.
        attempts: how many requests it took.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    parsed: tuple[Any, ...] = ()
    logprobs: tuple[tuple[TokenLogprob, ...] | None, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    attempts: int = 1

    @property
    def text(self) -> str:
        """The first sample."""
        return self.texts[0]

    @property
    def finish_reason(self) -> str:
        """Of the first sample."""
        return self.finish_reasons[0]


@dataclass(frozen=True, slots=True)
class Totals:
    """What a model has been asked since it was made.

    Attributes:
        requests: attempts that were sent, retries included; of a model in this process, questions.
        retries: those of them that were not the first for their question.
        answered: questions that were answered.
        failed: questions that were not.
        uncounted: answers whose tokens the server did not count: `prompt_tokens`, `completion_tokens` and `cost` are
            without them.
        cost: None for a model without a price.
    """

    requests: int = 0
    retries: int = 0
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    cost: float | None = None


class ChatModel(Protocol):
    """What a grader needs of a model."""

    @property
    def task(self) -> Task[Any] | None:
        """What a saved judge was trained to answer; None for any other model."""
        ...

    async def achat(
        self,
        messages: Messages,
        *,
        n: int = 1,
        temperature: float | None = None,
        max_tokens: int | None = None,
        logprobs: int | None = None,
        response_format: type[BaseModel] | Mapping[str, Any] | None = None,
        seed: int | None = None,
        top_p: float | None = None,
    ) -> ChatResponse:
        """Answer; raises `ChatError` where there is no answer."""
        ...
