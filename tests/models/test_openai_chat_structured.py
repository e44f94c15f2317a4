"""Answers of a given structure: the schema that is sent, and what is made of the answer."""

from __future__ import annotations

import enum
import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from rm_gallery.core.models import ChatError, OpenAIChatModel
from rm_gallery.core.models.structured import parse_structured, response_format
from tests.endpoint import Endpoint, Reply, sent, status


class Tone(enum.Enum):
    WARM = "warm"
    COLD = "cold"


class Point(BaseModel):
    text: str
    default: int = 3  # a field may be named like a keyword


class Opinion(BaseModel):
    """An opinion with its reasons."""

    score: int = Field(ge=0, le=4, description="how good")
    kind: Literal["short", "long"] = "short"
    tone: Tone = Field(Tone.WARM, description="of the reply")
    points: list[Point] = []
    best: Point | None = None
    counts: dict[str, int] = {}


points = st.builds(Point, text=st.text(), default=st.integers())
opinions = st.builds(
    Opinion,
    score=st.integers(0, 4),
    kind=st.sampled_from(["short", "long"]),
    tone=st.sampled_from(Tone),
    points=st.lists(points, max_size=3),
    best=st.none() | points,
    counts=st.dictionaries(st.text(), st.integers(), max_size=3),
)


@given(opinions)
def test_what_is_printed_is_parsed_back(opinion):
    text = opinion.model_dump_json()
    assert parse_structured(Opinion, text) == opinion
    assert parse_structured(Opinion, f"\n```json\n{text}\n```\n") == opinion  # a habit of many models
    assert parse_structured(Opinion, f"<think>\nPerhaps {{}}?\n</think>\n{text}") == opinion


def objects(schema):
    """All schemas of objects with fields in a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from objects(part)
    elif isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)


def test_the_schema_is_one_that_strict_mode_takes():
    sent = response_format(Opinion)
    schema = sent["json_schema"]["schema"]
    assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == (
        "json_schema",
        "Opinion",
        True,
    )
    found = list(objects(schema))
    assert len(found) == 2
    for part in found:
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
        for name, field in part["properties"].items():
            assert "default" not in field, name
            assert "$ref" not in field or list(field) == ["$ref"], name
    assert schema["$defs"]["Point"]["required"] == ["text", "default"]
    assert schema["properties"]["tone"]["description"] == "of the reply"
    assert schema["properties"]["counts"]["additionalProperties"] == {"type": "integer"}
    assert schema["properties"]["score"]["maximum"] == 4


def test_a_name_that_the_protocol_refuses_is_mended():
    from typing import Generic, TypeVar

    T = TypeVar("T")

    class Box(BaseModel, Generic[T]):
        inside: T

    assert response_format(Box[int])["json_schema"]["name"] == "Box_int_"


def chat(endpoint, wanted, **options):
    model = OpenAIChatModel("judge", endpoint.base_url)
    try:
        return model.chat([{"role": "user", "content": "q"}], response_format=wanted, **options)
    finally:
        model.close()


def test_the_answer_comes_as_the_model_that_was_asked_for():
    with Endpoint(answer=lambda body: '{"score": 3}') as endpoint:
        response = chat(endpoint, Opinion, n=2)
    assert response.parsed == (Opinion(score=3),) * 2
    assert endpoint.requests[0]["response_format"] == response_format(Opinion)


@pytest.mark.parametrize("text", ["", "I would say 3.", '{"score": 7}', '{"score": 3', "[]", "```\n```"])
def test_another_answer_is_an_error_with_its_cause_and_text(text):
    with (
        Endpoint(answer=lambda body: text) as endpoint,
        pytest.raises(ChatError, match="is no Opinion") as caught,
    ):
        chat(endpoint, Opinion)
    assert (caught.value.kind, caught.value.text, endpoint.count) == ("invalid_output", text, 1)
    assert isinstance(caught.value.__cause__, ValidationError)


def test_an_answer_that_was_cut_off_says_so():
    reply = Reply('{"score":', finish_reason="length")
    with (
        Endpoint(answer=lambda body: reply) as endpoint,
        pytest.raises(ChatError, match="cut off at max_tokens"),
    ):
        chat(endpoint, Opinion)


def test_a_schema_of_ones_own_is_sent_as_it_is_and_the_answer_left_alone():
    with Endpoint(answer=lambda body: "free") as endpoint:
        response = chat(endpoint, {"type": "json_object"})
    assert endpoint.requests[0]["response_format"] == {"type": "json_object"}
    assert (response.text, response.parsed) == ("free", ())


def test_a_server_that_refuses_structure_says_so():
    refusal = status(400, message="response_format is not supported")
    with Endpoint(script=[refusal]) as endpoint, pytest.raises(ChatError, match="response_format is not"):
        chat(endpoint, Opinion)


def test_a_refusal_of_the_model_is_no_structure():
    message = {"content": None, "refusal": "I will not."}
    body = json.dumps({"choices": [{"message": message}]}).encode()
    with Endpoint(script=[sent(200, body)]) as endpoint, pytest.raises(ChatError) as caught:
        chat(endpoint, Opinion)
    assert caught.value.text == "I will not."
