"""Answers of a given structure: a pydantic model as a JSON schema, and the answer back as that model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rm_gallery.core.models.chat import ChatError, ChatResponse

M = TypeVar("M", bound=BaseModel)


def response_format(wanted: type[BaseModel] | Mapping[str, Any]) -> dict[str, Any]:
    """The field `response_format` of a request: of a model its schema, strict; anything else as it is."""
    if not isinstance(wanted, type):
        return dict(wanted)
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", wanted.__name__)[:64]
    schema = {"name": name, "schema": strict_schema(wanted.model_json_schema()), "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def strict_schema(schema: Any) -> Any:
    """A copy as OpenAI's strict mode takes it: every object closed, every field required, no defaults.

    A field of a nested model may carry a description beside its reference, which strict mode refuses: the reference
    moves into an `anyOf` of one.
    """
    if isinstance(schema, list):
        return [strict_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):  # names of the user's, not keywords
            out[key] = {name: strict_schema(part) for name, part in value.items()}
        elif key in ("enum", "const"):
            out[key] = value
        elif key != "default":
            out[key] = strict_schema(value)
    if "$ref" in out and len(out) > 1:
        out = {"anyOf": [{"$ref": out.pop("$ref")}], **out}
    if out.get("type") == "object" and ("properties" in out or "additionalProperties" not in out):
        out["additionalProperties"] = False
        out["required"] = list(out.get("properties", {}))
    return out


def parse_structured(wanted: type[M], text: str) -> M:
    """The answer as the model; reasoning before it and one fence around it are taken off.

    Raises pydantic's `ValidationError`.
    """
    if text.lstrip().startswith("<think>"):
        text = text.rpartition("</think>")[2]
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", text.strip(), re.DOTALL)
    return wanted.model_validate_json(fenced[1] if fenced else text)


def with_parsed(response: ChatResponse, wanted: type[BaseModel], model: str) -> ChatResponse:
    """The response with each of its texts as the model that was asked for; `model` is the name for the message.

    Raises:
        ChatError: one is no such model; of kind `invalid_output`.
    """
    parsed = []
    for text, reason in zip(response.texts, response.finish_reasons, strict=True):
        try:
            parsed.append(parse_structured(wanted, text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the answer"
            shown = text if len(text) <= 80 else text[:80] + "…"
            cut = ", cut off at max_tokens" if reason == "length" else ""
            raise ChatError(
                f"the answer of {model} is no {wanted.__name__}: {place}: {first['msg']}: {shown!r}{cut}",
                kind="invalid_output",
                attempts=response.attempts,
                text=text,
            ) from error
    return replace(response, parsed=tuple(parsed))
