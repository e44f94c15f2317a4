"""A grader over a chat model: a real HTTP server on the loopback answers, well and badly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.graders import NO_REASON, GraderError, GraderScore, LLMGrader
from rm_gallery.core.models import OpenAIChatModel
from tests.endpoint import Endpoint, dropped, hang, normal, sent, status, truncated

PROMPT = "Grade.\nQ: {{ query }}\nA: {{ response }}\n{{ output_format }}"


def grader(model, **options):
    return LLMGrader(model, **{"name": "quality", "prompt": PROMPT, **options})


def verdict(score, reason="It is so."):
    return lambda _: json.dumps({"reason": reason, "score": score})


def in_tags(score):
    return lambda _: f"<reason>It is so.</reason>\n<score>{score}</score>"


def no_schemas(number, body):
    return status(400, message="unknown field") if "response_format" in body else normal()


def test_a_score_with_its_reason(chat):
    with Endpoint(answer=verdict(3)) as endpoint:
        result = grader(chat(endpoint)).evaluate(query="What is 2 + 3?", response="5")
    assert result == GraderScore("quality", 3.0, "It is so.", {"scale": [0, 4], "ends": ["worst", "best"]})
    [body] = endpoint.requests
    assert "Q: What is 2 + 3?\nA: 5\nAnswer with one JSON object" in body["messages"][0]["content"]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["score"]["maximum"] == 4
    assert body["temperature"] == 0


@pytest.mark.parametrize(("answer", "script"), [(verdict, ()), (in_tags, no_schemas)], ids=["json", "tags"])
def test_a_score_is_of_the_scale_or_there_is_none(chat, answer, script):
    """Whatever the model writes."""
    with Endpoint(script=script) as endpoint:
        made = grader(chat(endpoint))

        @settings(max_examples=60)
        @given(st.integers(-9, 9) | st.floats() | st.none() | st.text(max_size=3) | st.booleans())
        def check(score):
            endpoint.answer = answer(score)
            result = made.evaluate(query="q", response="r")
            if isinstance(result, GraderScore):
                assert not isinstance(score, bool)
                assert result.score == float(score)
                assert 0 <= result.score <= 4
            else:
                assert result.kind in ("invalid_output", "unparsable")
                assert result.error

        check()


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (status(500), "server"),
        (status(429), "rate_limited"),
        (status(401), "key"),
        (status(404), "not_found"),
        (status(400, code="context_length_exceeded", message="too long"), "overlong"),
        (dropped(), "connection"),
        (truncated(), "truncated"),
        (hang(20), "timeout"),
        (sent(200, b"<html>"), "malformed"),
    ],
)
def test_what_fails_is_an_error_with_its_cause(chat, behaviour, kind):
    with Endpoint(answer=verdict(3), script=[behaviour]) as endpoint:
        result = grader(chat(endpoint, timeout=0.3)).evaluate(query="q", response="r")
    assert isinstance(result, GraderError)
    assert result.kind == kind
    assert result.error.startswith(endpoint.base_url)
    assert result.metadata["attempts"] == 1


def test_errors_among_many_are_counted_one_by_one(chat):
    def script(number, body):
        return status(500) if "no. 3" in body["messages"][0]["content"] else normal()

    async def many(made):
        asked = (made.aevaluate(query="q", response=f"no. {i % 5}") for i in range(40))
        return await asyncio.gather(*asked)

    with Endpoint(answer=verdict(2), script=script) as endpoint:
        results = asyncio.run(many(grader(chat(endpoint))))
    assert [isinstance(result, GraderError) for result in results] == [i % 5 == 3 for i in range(40)]


def test_an_endpoint_that_takes_no_schema_is_asked_in_tags_from_then_on(chat):
    with Endpoint(answer=in_tags(2), script=no_schemas) as endpoint:
        made = grader(chat(endpoint))
        results = [made.evaluate(query="q", response=f"r{i}") for i in range(3)]
    assert [result.score for result in results] == [2, 2, 2]
    assert results[0].reason == "It is so."
    assert ["response_format" in body for body in endpoint.requests] == [True, False, False, False]
    assert "<score>X</score>" in endpoint.requests[-1]["messages"][0]["content"]


def test_a_question_that_is_refused_in_either_form_is_told_as_it_was_first(chat):
    refusals = [status(400, message="no schema of yours"), status(400, message="nor this")]
    with Endpoint(answer=verdict(2), script=refusals) as endpoint:
        made = grader(chat(endpoint))
        result = made.evaluate(query="q", response="r")
        assert (result.kind, "no schema of yours" in result.error) == ("refused", True)
        assert made.evaluate(query="q", response="r").score == 2  # and asks for JSON again
    assert "response_format" in endpoint.requests[-1]


def test_an_answer_without_a_reason_says_so(chat):
    class Bare(BaseModel):
        score: int = Field(ge=1, le=10)

    with Endpoint(answer=lambda _: '{"score": 7}') as endpoint:
        made = grader(chat(endpoint), result=Bare)
        result = made.evaluate(query="q", response="r")
    assert (made.scale, result.score, result.reason) == ((1, 10), 7.0, NO_REASON)
    with Endpoint(answer=verdict(3, reason="")) as endpoint:
        assert grader(chat(endpoint)).evaluate(query="q", response="r").reason == NO_REASON


def test_further_fields_of_the_result_are_metadata(chat):
    class Detailed(BaseModel):
        score: float
        errors: list[str] = []

    with Endpoint(answer=lambda _: '{"score": 0.5, "errors": ["a"]}') as endpoint:
        result = grader(chat(endpoint), result=Detailed, scale=(0.0, 1.0)).evaluate(query="q", response="r")
    assert (result.score, result.metadata["errors"]) == (0.5, ["a"])


# -- the prompt


def asked(chat, prompt, fields, **options):
    with Endpoint(answer=verdict(1)) as endpoint:
        made = grader(chat(endpoint), prompt=prompt, **options)
        result = made.evaluate(**fields)
    return made, result, endpoint.requests and endpoint.requests[0]["messages"][0]["content"]


def test_what_is_graded_is_text_and_no_template(chat):
    hostile = "{{ query.__class__ }} {% raw %} {{ output_format }}"
    _, result, text = asked(chat, PROMPT, {"query": "q", "response": hostile})
    assert isinstance(result, GraderScore)
    assert f"A: {hostile}\n" in text


def test_a_conversation_is_written_as_turns(chat):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 3?"}]
    _, _, text = asked(chat, PROMPT, {"query": turns, "response": "5"})
    assert "Q: System: Be brief.\n\nUser: What is 2 + 3?\nA: 5" in text


def test_the_output_format_is_appended_where_the_prompt_does_not_name_it(chat):
    made, _, text = asked(chat, "Is {{ answer }} prime?", {"answer": 7})
    assert made.required == ("answer",)
    assert text.startswith("Is 7 prime?\n\nAnswer with one JSON object")


def test_fields_may_be_optional(chat):
    prompt = "{{ response }}{% if reference %} against {{ reference }}{% endif %}"
    made, _, text = asked(chat, prompt, {"response": "r"}, optional=["reference"])
    assert (made.required, made.optional) == (("response",), ("reference",))
    assert "against" not in text
    assert (
        "r against s" in asked(chat, prompt, {"response": "r", "reference": "s"}, optional=["reference"])[2]
    )


def test_a_prompt_may_be_a_file(chat, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(PROMPT)
    for source in (path, str(path)):
        assert asked(chat, source, {"query": "q", "response": "r"})[2].startswith("Grade.\nQ: q")


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("{% if %}", "line 1"),
        ("a\n{{ query", "line 2"),
        ("gone.jinja", "gone.jinja cannot be read"),
        (Path("gone.txt"), "gone.txt cannot be read"),
    ],
)
def test_a_prompt_that_is_none_is_refused(chat, prompt, said):
    with Endpoint() as endpoint, pytest.raises(ConfigError, match=said):
        grader(chat(endpoint), prompt=prompt)


def test_the_sandbox_keeps_what_is_not_the_prompts(chat):
    with Endpoint(answer=verdict(1)) as endpoint:
        made = grader(chat(endpoint), prompt="{{ response.__class__.__mro__ }}")
        with pytest.raises(ConfigError, match="may not"):
            made.evaluate(response="r")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"query": None, "response": "r"}, "query is None"),
        ({"query": "  ", "response": "r"}, "query is empty"),
        ({"query": "q", "response": None}, "response is None"),
        ({"query": [{"role": "user"}], "response": "r"}, "list of chat messages"),
    ],
)
def test_an_item_that_cannot_be_graded_is_an_error(chat, fields, said):
    with Endpoint(answer=verdict(1)) as endpoint:
        result = grader(chat(endpoint)).evaluate(**fields)
    assert (result.kind, said in result.error, endpoint.count) == ("data", True, 0)


def test_missing_and_unknown_fields_are_the_callers_mistake(chat):
    with Endpoint() as endpoint:
        made = grader(chat(endpoint))
        with pytest.raises(TypeError, match="quality needs the field 'response'; it was given query"):
            made.evaluate(query="q")
        with pytest.raises(
            TypeError, match=r"no field 'respond', only query, response\. Did you mean 'response'"
        ):
            made.evaluate(query="q", response="r", respond="r")
        row = {"query": "q", "response": "r", "id": 7}
        assert made.select(row) == {"query": "q", "response": "r"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": (4, 0)}, "does not go from a lower"),
        ({"result": type("No", (BaseModel,), {})}, "say the scale|no field score"),
        ({"result": type("No", (BaseModel,), {}), "scale": (0, 1)}, "No has no field score"),
    ],
)
def test_a_scale_or_result_that_cannot_be_is_refused(chat, options, said):
    with Endpoint() as endpoint, pytest.raises(ConfigError, match=said):
        grader(chat(endpoint), **options)


def test_a_model_in_this_process_is_asked_in_tags(tiny_model, one_thread):
    model = OpenAIChatModel(str(tiny_model), is_local=True, max_tokens=4)
    made = grader(model)
    result = made.evaluate(query="q", response="r")
    assert (result.kind, "no <score> tag" in result.error) == ("unparsable", True)
    assert result.metadata["text"]
    assert grader(model).evaluate(query="q" * 2100, response="r").kind == "overlong"
    model.close()


def test_it_works_where_a_loop_runs_already(chat):
    """As in a notebook."""

    async def cell(made):
        return made.evaluate(query="q", response="r"), await made.aevaluate(query="q", response="r")

    with Endpoint(answer=verdict(4)) as endpoint:
        one, other = asyncio.run(cell(grader(chat(endpoint))))
    assert one == other
