"""The judge over OpenAI's protocol, asked by this toolkit's own client and by hand."""

from __future__ import annotations

import asyncio

import pytest

from rm_gallery.core.judge.endpoint import EndpointJudge
from rm_gallery.core.models import ChatError, OpenAIChatModel
from rm_gallery.core.tasks import PointwiseTask
from tests.serve.test_api import THREE_TURNS
from tests.service import serving

HELLO = [{"role": "user", "content": "Hello."}]
PATH = "/v1/chat/completions"


def test_the_toolkits_own_client_gets_what_the_judge_writes(pointwise):
    model = OpenAIChatModel("judge", f"{pointwise.url}/v1", max_retries=0)
    asked = [[{"role": "user", "content": f"question {i} " * (i % 4)}] for i in range(12)]

    async def many():
        return await asyncio.gather(*(model.achat(one, max_tokens=6, temperature=0) for one in asked))

    found = asyncio.run(many())
    judge = pointwise.subject.judge
    assert [response.text for response in found] == judge.generate(asked, max_new_tokens=6)
    assert [response.prompt_tokens for response in found] == list(map(len, judge.encode(asked)))
    assert {(response.completion_tokens, response.finish_reason) for response in found} <= {
        (6, "length"),
        *((n, "stop") for n in range(1, 7)),
    }
    model.close()


def test_tokens_are_counted_with_the_end_of_the_turn(pointwise, monkeypatch):
    """A judge whose most probable token is the end of the turn writes one token and stops."""
    judge = pointwise.subject.judge
    [usual] = list(judge.complete(judge.encode([HELLO]), max_new_tokens=5))
    first = judge.tokenizer(usual[0].text, add_special_tokens=False)["input_ids"][:1]
    assert (usual[0].tokens, usual[0].ended) == (5, False)
    second_token = judge.model.generation_config.eos_token_id
    monkeypatch.setattr(judge.model.generation_config, "eos_token_id", [second_token, *_first(judge)])
    body = pointwise.post(PATH, {"messages": HELLO, "max_tokens": 5}).json()
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == 1
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 1
    assert first is not None


def _first(judge):
    """The token that is written first."""
    [prompt] = judge.encode([HELLO])
    [(_, rows)] = list(judge._decode([prompt], max_new_tokens=1, samples=None, seed=0))
    return rows[0]


def test_messages_may_come_in_parts_and_with_names(pointwise):
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]
    [plain, other] = [
        pointwise.post(PATH, {"messages": messages, "max_tokens": 4, "model": "whatever"}).json()
        for messages in (HELLO, [{"role": "user", "content": parts, "name": "someone"}])
    ]
    assert plain["choices"] == other["choices"]
    assert plain["object"] == "chat.completion"
    assert plain["model"] == pointwise.subject.name


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.7},
        {"n": 2},
        {"stream": True},
        {"logprobs": True},
        {"stop": ["."]},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"repetition_penalty": 1.2},
        {"logit_bias": {"1": 5}},
        {"colour": "blue"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_is_not_done_is_refused_in_a_sentence(pointwise, fields):
    response = pointwise.post(PATH, {"messages": HELLO, **fields})
    [name] = fields
    error = response.json()["error"]
    assert response.status_code == 400
    assert name in error["message"]
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")


def test_what_makes_no_difference_is_taken(pointwise):
    neutral = {
        "temperature": 0.0,
        "n": 1,
        "stream": False,
        "top_p": 0.9,
        "seed": 3,
        "user": "me",
        "stop": None,
        "tools": [],
        "response_format": {"type": "text"},
        "frequency_penalty": 0,
    }
    plain, asked = (
        pointwise.post(PATH, {"messages": HELLO, "max_tokens": 4, **more}).json() for more in ({}, neutral)
    )
    assert plain["choices"] == asked["choices"]


def test_what_is_too_long_has_openais_code(pointwise):
    model = OpenAIChatModel("judge", f"{pointwise.url}/v1", max_retries=0)
    with pytest.raises(ChatError) as caught:
        model.chat([{"role": "user", "content": "y" * 3000}])
    assert caught.value.kind == "overlong"
    with pytest.raises(ChatError) as caught:
        model.chat(HELLO, max_tokens=2048)
    assert caught.value.kind == "overlong"
    model.close()


def test_a_length_that_nobody_asked_for_ends_with_the_context(pointwise):
    """512 tokens are the service's own choice, and 2048 the context."""
    messages = [{"role": "user", "content": "y" * 2000}]
    body = pointwise.post(PATH, {"messages": messages}).json()
    assert body["usage"]["total_tokens"] <= 2048
    assert body["usage"]["completion_tokens"] > 0


def test_a_conversation_that_the_chat_template_refuses_is_named(tiny_model):
    with serving(tiny_model, "pointwise") as running:
        running.subject.judge.tokenizer.chat_template = (
            "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "{{ m['content'] }}{% endfor %}"
        )
        response = running.post(PATH, {"messages": THREE_TURNS})
        assert response.status_code == 400
        assert "no system" in response.json()["error"]["message"]
        good = running.post(PATH, {"messages": HELLO, "max_tokens": 2})
        assert good.status_code == 200
        item = {"messages": THREE_TURNS, "response": "x"}
        # a task puts one question of its own: the template never sees these turns
        assert running.results("/v1/score", [item])[0]["problem"] == ""


def test_an_endpoint_judge_can_ask_this_service(pointwise):
    """A judge that is served is a judge behind an endpoint for others."""
    model = OpenAIChatModel("judge", f"{pointwise.url}/v1", max_retries=0)
    asked = [[{"role": "user", "content": f"rate {i}"}] for i in range(4)]
    task = PointwiseTask()
    there = EndpointJudge(model).answer(task, asked, mode="greedy", max_new_tokens=6)
    here = pointwise.subject.judge.answer(task, asked, mode="greedy", max_new_tokens=6)
    assert [(a.verdict, a.text, a.problem) for a in there] == [(a.verdict, a.text, a.problem) for a in here]
    model.close()
