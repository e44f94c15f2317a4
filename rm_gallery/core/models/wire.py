"""The OpenAI protocol's chat completions, as servers send them, read into our own types."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rm_gallery.core.models.chat import Kind, TokenLogprob

_OVERLONG = re.compile(
    r"context[ _]length|context[ _]size|context window|(?:prompt|input) is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)
"""How servers that have no code for it say that a question is longer than the model's context."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Part(_Wire):
    text: str = ""


class _Message(_Wire):
    content: str | None = None
    refusal: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        if isinstance(value, list):  # parts, as some servers send them
            return "".join(_Part.model_validate(part).text for part in value)
        return value


class _Top(_Wire):
    token: str
    logprob: float | None = None


class _Token(_Top):
    top_logprobs: list[_Top] | None = None


class _Logprobs(_Wire):
    content: list[_Token] | None = None


class _Choice(_Wire):
    index: int = 0
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None

    def tokens(self) -> tuple[TokenLogprob, ...] | None:
        """None where the server gave no log-probabilities."""
        if self.logprobs is None or self.logprobs.content is None:
            return None
        return tuple(
            TokenLogprob(
                token.token,
                float("-inf") if token.logprob is None else token.logprob,
                tuple(
                    (top.token, top.logprob) for top in token.top_logprobs or () if top.logprob is not None
                ),
            )
            for token in self.logprobs.content
        )


class _Usage(_Wire):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(_Wire):
    """A chat completion."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage = _Usage()

    @field_validator("usage", mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("choices")
    @classmethod
    def _in_order(cls, value: list[_Choice]) -> list[_Choice]:
        return sorted(value, key=lambda choice: choice.index)


class Refusal(_Wire):
    """What a server says instead of a completion. Servers differ in all of it but the words."""

    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None

    @classmethod
    def read(cls, body: bytes) -> Refusal:
        """Of whatever body; its first line where it has no `error`."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = body.decode(errors="replace").strip().partition("\n")[0]
        error = content.get("error", content) if isinstance(content, dict) else content
        if isinstance(error, dict):
            said = error.get("message") or error.get("detail") or error.get("type") or ""
            kept = {
                key: error[key] for key in ("type", "code", "param") if isinstance(error.get(key), (str, int))
            }
            return cls(message=_line(said), **{k: v if k == "code" else str(v) for k, v in kept.items()})
        return cls(message=_line(error))

    def kind(self, status: int) -> Kind:
        """What it means, by its status and, where that is not enough, its code and words."""
        if self.code == "insufficient_quota" or self.type == "insufficient_quota":
            return "quota"
        if self.code == "context_length_exceeded" or self.type == "exceed_context_size_error":
            return "overlong"
        if status in (400, 413, 422, 500) and _OVERLONG.search(self.message):
            return "overlong"  # a 500 of llama.cpp too
        known: dict[int, Kind] = {401: "key", 403: "forbidden", 404: "not_found", 429: "rate_limited"}
        return known.get(status, "server" if status >= 500 or status == 408 else "refused")


def _line(text: Any) -> str:
    words = " ".join(str(text).split()).rstrip(".")
    return words if len(words) <= 300 else words[:300] + "…"
