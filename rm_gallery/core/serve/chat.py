"""`POST /v1/chat/completions`: a generative judge in this process, asked as OpenAI's clients ask.

It answers by greedy decoding. What would ask for anything else is refused in a sentence, and not left aside.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rm_gallery.core.serve.engine import Reply
from rm_gallery.core.serve.errors import Refusal
from rm_gallery.core.serve.schemas import Text

MAX_NEW_TOKENS = 512
"""Where an answer is cut off that names no length, of a judge that was not trained here."""
_WITHOUT_EFFECT = {
    "user",
    "seed",
    "top_p",
    "top_k",
    "store",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
}
"""What greedy decoding does not depend on."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "temperature": (0,),
    "stream": (False,),
    "logprobs": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none",),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "stream_options": (),
}
"""Fields that are taken where they ask for what is done anyway."""


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    """One turn. `name` and what else clients send with it is not shown to the judge."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def turn(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(BaseModel):
    """Greedy decoding: temperature 0 or none, one choice, no stream."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "model": "runs/judge",
                    "messages": [{"role": "user", "content": "What is 2 + 3?"}],
                    "temperature": 0,
                    "max_tokens": 32,
                }
            ]
        },
    )
    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = Field(None, description="Whatever it says: there is one model here.")
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    def check(self) -> None:
        """Raise `Refusal` for a field that asks for what is not done here."""
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _WITHOUT_EFFECT or value in _NEUTRAL.get(name, ()):
                continue
            if name in _NEUTRAL:
                meant = " or ".join(map(json.dumps, _NEUTRAL[name]))
                how = f"leave it out, or set it to {meant}" if meant else "leave it out"
                message = f"{name} is not supported, for the judge answers once and by greedy decoding: {how}"
            else:
                message = f"there is no field {name[:80]!r}, or it is not supported"
            raise Refusal(400, message, param=name[:80], code="unsupported_parameter")

    def conversation(self) -> list[dict[str, str]]:
        return [message.turn() for message in self.messages]

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(BaseModel):
    """In tokens; the end of the turn counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """OpenAI's chat completion."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "chatcmpl-6f1d",
                    "object": "chat.completion",
                    "created": 1760000000,
                    "model": "runs/judge",
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": "<score>4</score>"},
                            "finish_reason": "stop",
                            "logprobs": None,
                        }
                    ],
                    "usage": {"prompt_tokens": 61, "completion_tokens": 8, "total_tokens": 69},
                }
            ]
        }
    )
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


def completion(reply: Reply, model: str) -> ChatCompletion:
    """Raises `Refusal` where there is no answer."""
    if reply.problem:
        kind, _, said = reply.problem.partition(": ")
        if kind == "overlong":
            # the code by which clients know it
            raise Refusal(
                400, f"beyond the context length: {said}", param="messages", code="context_length_exceeded"
            )
        raise Refusal(400, said, param="messages")
    return ChatCompletion(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=model,
        choices=[
            Choice(
                message=ChatMessage(role="assistant", content=reply.text),
                finish_reason="stop" if reply.ended else "length",
            )
        ],
        usage=Usage(
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            total_tokens=reply.prompt_tokens + reply.completion_tokens,
        ),
    )
