"""Whatever is sent to the service's own OpenAPI, it answers as that says, and never with a 5xx."""

from __future__ import annotations

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from rm_gallery.core.serve import schemas
from tests.service import serving

QUESTIONS = ["/v1/score", "/v1/compare", "/v1/rank", "/v1/chat/completions", "/get_reward"]


@pytest.fixture(scope="module")
def running(tiny_model):
    with serving(tiny_model, "pointwise", max_new_tokens=4) as service:
        yield service


@pytest.fixture(scope="module")
def schema(running):
    return schemathesis.openapi.from_url(f"{running.url}/openapi.json")


def operations(schema):
    return {f"{o.ok().method.upper()} {o.ok().path}": o.ok() for o in schema.get_all_operations()}


def test_every_operation_is_there(schema):
    assert set(operations(schema)) == {
        *(f"POST {path}" for path in QUESTIONS),
        "GET /v1/models",
        "GET /healthz",
        "GET /metrics",
    }


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", QUESTIONS)
def test_malformed_and_well_formed_bodies_are_answered_as_documented(schema, path, mode):
    operation = schema[path]["POST"]

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        response = case.call()
        assert response.status_code < 500, (case.body, response.text)
        case.validate_response(
            response,
            checks=[
                schemathesis.checks.not_a_server_error,
                schemathesis.checks.load_all_checks and _check("status_code_conformance"),
                _check("content_type_conformance"),
                _check("response_schema_conformance"),
            ],
        )

    check()


def _check(name):
    return schemathesis.checks.CHECKS.get_one(name)


@pytest.mark.parametrize("path", QUESTIONS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["items", "query", "response", "mode", "messages", "x"]), inner
                )
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_bytes_of_any_kind_are_no_5xx(running, path, content):
    response = running.http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 413, 422), (content, response.text)
    assert set(response.json()) == {"error"} or response.status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(b'{"items": ' * 20_000, id="nested objects"),
        pytest.param(b'{"items": [{"query": "\\ud800", "response": "x"}]}', id="half a surrogate pair"),
        pytest.param(
            b'{"items": [{"query": "q", "response": "\\u0000"}], "mode": null}', id="a null character"
        ),
        pytest.param(b'{"items": [{"query": ' + b"9" * 10_000 + b', "response": "x"}]}', id="digits"),
        pytest.param(b'{"items": [{"query": NaN, "response": "x"}]}', id="NaN"),
        pytest.param(b'{"items": [{"query": 1e999, "response": "x"}]}', id="infinity"),
        pytest.param(b'\xff\xfe{"items": []}', id="not UTF-8"),
        pytest.param(b'{"items": [], "items": [{"query": "q", "response": "<|end|><|user|>"}]}', id="twice"),
        pytest.param(b"", id="nothing"),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "application/json; charset=latin-9"])
def test_bodies_that_break_parsers(running, content, kind):
    for path in QUESTIONS:
        response = running.http.post(path, content=content, headers={"Content-Type": kind})
        assert response.status_code in (200, 400, 422), response.text
        if response.status_code != 200:
            assert response.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain"])
def test_a_body_that_is_not_sent_as_json_is_told_so(running, kind):
    """What curl sends where it is not told."""
    body = b'{"items": [{"query": "q", "response": "r"}]}'
    response = running.http.post("/v1/score", content=body, headers={"Content-Type": kind})
    assert response.status_code == 422
    assert "Content-Type: application/json" in response.json()["error"]["message"]


def test_what_is_wrong_is_said_with_its_place_and_without_the_text(running):
    secret = "what nobody else should read"
    body = {"items": [{"query": "q", "response": "r"}, {"query": secret, "respons": secret}]}
    response = running.post("/v1/score", body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == "items.1.response"
    assert error["message"] == "items.1.response: Field required (and 1 more)"
    assert secret not in response.text
    neither = running.post("/v1/score", {"items": [{"response": "r"}]}).json()["error"]["message"]
    assert neither == "items.0: give query or messages: one of the two"


def test_the_examples_are_requests_that_work_and_answers_of_that_form(running):
    """Those that OpenAPI shows."""
    paths = running.http.get("/openapi.json").json()["paths"]
    components = running.http.get("/openapi.json").json()["components"]["schemas"]
    for path in QUESTIONS:
        operation = paths[path]["post"]
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        [example] = components[name]["examples"]
        assert running.post(path, example).status_code == 200, path
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        assert components[answer.rpartition("/")[2]]["examples"], path
    for name in ("ScoreResponse", "CompareResponse", "RankResponse", "ServedModels", "ErrorResponse"):
        model = getattr(schemas, name)
        [example] = model.model_config["json_schema_extra"]["examples"]
        assert model.model_validate(example).model_dump(exclude_unset=True) == example
