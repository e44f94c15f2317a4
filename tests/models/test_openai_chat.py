"""A chat model over an endpoint: each misbehaviour of a real server ends as it should, with the right counts."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import logging
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from datetime import datetime, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core import models
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models import Backoff, ChatError, OpenAIChatModel, Price
from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.core.tasks.saved import save_task
from tests.conftest import ROOT
from tests.endpoint import (
    Endpoint,
    Reply,
    Token,
    cut_off,
    dropped,
    hang,
    normal,
    sent,
    status,
    truncated,
    words,
)

KEY = "sk-proj-0123456789abcdef"
QUICK = Backoff(first=0.001, longest=0.01, longest_asked=0.3)


@pytest.fixture
def chat():
    """Models over an endpoint, closed at the end."""
    made = []

    def make(endpoint, **options):
        options = {"timeout": 5, "backoff": QUICK, "api_key": KEY, **options}
        made.append(OpenAIChatModel("judge", endpoint.base_url, **options))
        return made[-1]

    yield make
    for model in made:
        model.close()


@pytest.fixture(scope="module")
def echo():
    """A model that says what it is told."""
    with Endpoint() as endpoint:
        model = OpenAIChatModel("echo", endpoint.base_url)
        yield model
        model.close()


def ask(text="how good is it?"):
    return [{"role": "user", "content": text}]


# -- what passes


@pytest.mark.parametrize(
    "behaviour",
    [
        *(status(code) for code in (408, 429, 500, 502, 503, 504, 529)),
        dropped(),
        cut_off(),
        truncated(),
        sent(200, b""),
        sent(200, b'{"error": {"message": "upstream", "code": 502}}'),  # a gateway that sent 200 too early
        sent(200, b"not gzip", {"Content-Encoding": "gzip"}),
    ],
)
def test_what_may_pass_is_asked_again(behaviour, chat):
    with Endpoint(script=[behaviour, behaviour]) as endpoint:
        model = chat(endpoint)
        response = model.chat(ask("fine"))
    assert (response.text, response.attempts, endpoint.count) == ("fine", 3, 3)
    assert (model.totals.requests, model.totals.retries, model.totals.answered) == (3, 2, 1)


def test_a_server_that_hangs_is_asked_again(chat):
    with Endpoint(script=[hang(30), hang(30)]) as endpoint:
        start = time.monotonic()
        assert chat(endpoint, timeout=0.1).chat(ask("late")).attempts == 3
    assert 0.2 <= time.monotonic() - start < 5


def test_an_answer_that_drips_is_given_up_too(chat):
    """The limit is on the whole attempt: a byte now and then does not extend it."""

    def drip(exchange):
        exchange.endpoint._ended()
        for _ in range(50):
            exchange.handler.wfile.write(b"HTTP/1.1 200 OK\r\n"[:1])
            time.sleep(0.02)

    with Endpoint(script=[drip]) as endpoint:
        assert chat(endpoint, timeout=0.1).chat(ask("slow")).attempts == 2


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        (status(500), "server", "answered 500: it is so (3 attempts)"),
        (status(429), "rate_limited", "answered 429: it is so (3 attempts)"),
        (dropped(), "connection", "broke the connection off: Server disconnected"),
        (cut_off(), "connection", "broke the connection off: peer closed"),
        (truncated(), "truncated", "sent JSON that breaks off after"),
        (hang(30), "timeout", "did not answer within 0.1 s (3 attempts)"),
    ],
)
def test_what_does_not_pass_is_one_error_with_its_cause(behaviour, kind, said, chat):
    with Endpoint(script=lambda *_: behaviour) as endpoint:
        model = chat(endpoint, timeout=0.1 if kind == "timeout" else 5, max_retries=2)
        with pytest.raises(ChatError) as caught:
            model.chat(ask())
    assert (caught.value.kind, caught.value.attempts, endpoint.count) == (kind, 3, 3)
    assert said in str(caught.value)
    assert endpoint.base_url in str(caught.value)
    assert (model.totals.failed, model.totals.answered) == (1, 0)
    # of what has no status the library's own error is named, and it is no object that holds the request
    assert (caught.value.__cause__ is None) == (caught.value.status is not None)
    assert not hasattr(caught.value.__cause__, "request")


def test_nobody_there_is_unreachable(chat):
    with Endpoint() as endpoint:
        gone = endpoint.base_url
    model = OpenAIChatModel("judge", gone, max_retries=2, backoff=QUICK)
    with pytest.raises(ChatError, match=r"could not be reached.*\(3 attempts\)") as caught:
        model.chat(ask())
    assert (caught.value.kind, model.totals.requests) == ("unreachable", 3)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form, chat):
    now = datetime.now(timezone.utc).replace(microsecond=0)
    asked = {
        "seconds": {"Retry-After": "0.2"},
        "date": {"Retry-After": format_datetime(now, usegmt=True), "Date": "Tue, 01 Jan 2019 00:00:00 GMT"},
    }[form]
    # the date is years ahead of the server's clock: only as much is granted as the model allows
    at_least = {"seconds": 0.2, "date": QUICK.longest_asked}[form]
    with Endpoint(script=[status(429, headers=asked)]) as endpoint:
        chat(endpoint).chat(ask())
    first, second = endpoint.times
    assert at_least <= second - first < at_least + 0.5


# -- what does not pass


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (status(400), "refused"),
        (status(401), "key"),
        (status(403), "forbidden"),
        (status(404), "not_found"),
        (status(405), "refused"),
        (status(422), "refused"),
        (status(429, code="insufficient_quota"), "quota"),  # no request brings it back
        (
            status(307, headers={"Location": "https://elsewhere.example/"}),
            "refused",
        ),  # the key is not carried on
        (sent(400, b"<html>\n  bad\n  request\n</html>"), "refused"),
        (sent(400, b'{"detail": [{"loc": ["body"]}]}'), "refused"),
        (sent(400, b'{"error": {"message": null, "code": {"odd": [1]}}}'), "refused"),
        (sent(404, b""), "not_found"),
        (sent(200, b"<html>hello</html>"), "malformed"),
        (sent(200, b"[1, 2]"), "malformed"),
        (sent(200, b'{"choices": []}'), "malformed"),
        (sent(200, b'{"choices": [{"message": {"content": 3}}]}'), "malformed"),
    ],
)
def test_what_cannot_pass_is_asked_once_and_told_in_one_sentence(behaviour, kind, chat):
    with Endpoint(script=[behaviour]) as endpoint:
        model = chat(endpoint)
        with pytest.raises(ChatError) as caught:
            model.chat(ask())
    assert (caught.value.kind, caught.value.attempts, endpoint.count) == (kind, 1, 1)
    assert "\n" not in str(caught.value)
    assert (model.totals.retries, model.totals.failed) == (0, 1)


def test_a_wrong_model_and_a_forgotten_is_local_are_told(tmp_path):
    with Endpoint(script=lambda *_: status(404, message="no such model")) as endpoint:
        with pytest.raises(ChatError, match=r"no such model: check base_url and the model's name, 'gpt-99'$"):
            OpenAIChatModel("gpt-99", endpoint.base_url).chat(ask())
        with pytest.raises(ChatError, match="is_local=True loads a folder"):
            OpenAIChatModel(str(tmp_path), endpoint.base_url).chat(ask())


@pytest.mark.parametrize(
    "behaviour",
    [
        status(400, code="context_length_exceeded"),  # OpenAI
        status(
            400, code=400, message="This model's maximum context length is 2048 tokens. However, you …"
        ),  # vLLM
        status(400, type="exceed_context_size_error"),  # llama.cpp
        status(500, message="Context size has been exceeded."),  # llama.cpp, before it had a type for it
        status(400, message="prompt is too long: 250000 tokens > 200000 maximum"),  # Anthropic
    ],
)
def test_a_question_longer_than_the_context_is_told_apart(behaviour, chat):
    with (
        Endpoint(script=[behaviour]) as endpoint,
        pytest.raises(ChatError, match="too long for the model") as caught,
    ):
        chat(endpoint).chat(ask())
    assert (caught.value.kind, endpoint.count) == ("overlong", 1)


# -- concurrency


@settings(max_examples=8)
@given(
    limit=st.integers(1, 6),
    questions=st.integers(1, 24),
    failing=st.integers(2, 5),
    threads=st.integers(1, 3),
)
def test_no_more_requests_are_under_way_than_the_limit(limit, questions, failing, threads):
    """Whatever fails, and from however many loops it is asked."""

    def script(number, _):
        return status(503) if number % failing == 0 else hang(0.005)

    with Endpoint(script=script) as endpoint:
        model = OpenAIChatModel(
            "judge", endpoint.base_url, max_concurrency=limit, max_retries=50, backoff=QUICK
        )
        answers = [[] for _ in range(threads)]

        async def many(thread):
            texts = [f"{thread} {i}" for i in range(questions)]
            responses = await asyncio.gather(*(model.achat(ask(text)) for text in texts))
            answers[thread] = [response.text for response in responses] == texts

        workers = [threading.Thread(target=lambda t=t: asyncio.run(many(t))) for t in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        model.close()
    assert answers == [True] * threads
    assert endpoint.most_at_once <= limit
    assert endpoint.count == model.totals.requests == threads * questions + model.totals.retries


def test_the_limit_is_used(chat):
    with Endpoint(script=lambda *_: hang(0.1)) as endpoint:
        model = chat(endpoint, max_concurrency=7)

        async def many():
            await asyncio.gather(*(model.achat(ask()) for _ in range(14)))

        asyncio.run(many())
    assert endpoint.most_at_once == 7


def test_one_model_serves_loop_after_loop_and_a_notebook(chat):
    """A connection of a loop that has ended would be a dead one."""
    with Endpoint() as endpoint:
        model = chat(endpoint)

        async def in_a_running_loop():
            assert model.chat(ask("sync")).text == "sync"
            return (await model.achat(ask("async"))).text

        for _ in range(3):
            assert asyncio.run(in_a_running_loop()) == "async"
        assert model.chat(ask("plain")).text == "plain"
        model.close()
        assert model.chat(ask("after closing")).text == "after closing"


def test_a_cancelled_question_gives_its_place_back(chat):
    with Endpoint(script=[hang(30)]) as endpoint:
        model = chat(endpoint, max_concurrency=1, timeout=30)

        async def impatient():
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(model.achat(ask()), 0.1)
            return await asyncio.wait_for(model.achat(ask("next")), 5)

        assert asyncio.run(impatient()).text == "next"


@pytest.mark.parametrize(("limit", "timeout"), [(2, 0.05), (32, 0.3)])
def test_an_endpoint_that_fails_in_every_way_loses_no_question(limit, timeout, chat):
    """Nor does a connection that was given up keep its place in the library's pool, which comes to a standstill then."""
    failures = [status(500), status(429, headers={"Retry-After": "0.002"}), dropped(), truncated(), cut_off()]
    drawn = random.Random(limit)

    def script(*_):
        share = drawn.random()
        return hang(30) if share < 0.1 else drawn.choice(failures) if share < 0.3 else normal()

    with Endpoint(script=script) as endpoint:
        model = chat(endpoint, timeout=timeout, max_concurrency=limit, max_retries=20)

        async def many():
            return await asyncio.gather(*(model.achat(ask(str(i))) for i in range(200)))

        responses = asyncio.run(many())
        assert [response.text for response in responses] == [str(i) for i in range(200)]
        # an attempt may be given up before it has left
        assert sum(response.attempts for response in responses) == model.totals.requests >= endpoint.count
        assert "Requests: 0 active, 0 queued | Connections: 0 active" in repr(
            model._transport._session.client._transport._pool
        )


def test_questions_cancelled_at_any_moment_leave_all_places_free(chat):
    """Afterwards three are under way at once: each waits until there are three."""
    drawn, later, together = random.Random(1), threading.Event(), threading.Barrier(3)

    def held(exchange):
        together.wait(30)
        normal()(exchange)

    with Endpoint(script=lambda *_: held if later.is_set() else hang(0.01 * drawn.random())) as endpoint:
        model = chat(endpoint, max_concurrency=3)

        async def impatient(i):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(model.achat(ask(str(i))), 0.2 * drawn.random())

        async def many():
            await asyncio.gather(*(impatient(i) for i in range(120)))
            later.set()
            return await asyncio.gather(*(model.achat(ask(str(i))) for i in range(9)))

        assert [response.text for response in asyncio.run(many())] == [str(i) for i in range(9)]
    assert endpoint.most_at_once <= 3 + 1  # one that was given up may still be seen by the server


def test_closing_while_a_question_is_under_way_asks_it_again(chat):
    with Endpoint(script=[hang(30)]) as endpoint:
        model = chat(endpoint)

        async def close():
            asked = asyncio.ensure_future(model.achat(ask("still")))
            while endpoint.count < 1:
                await asyncio.sleep(0.001)
            model.close()
            return await asked

        response = asyncio.run(close())
    assert (response.text, response.attempts) == ("still", 2)


def test_an_interrupted_question_is_given_up(chat):
    """Ctrl-C, from a thread that waits until the request is there."""

    def interrupt():
        while endpoint.at_once < 1:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with Endpoint(script=[hang(30)]) as endpoint:
        model = chat(endpoint, timeout=30)
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            model.chat(ask())
        for _ in range(300):
            if endpoint.at_once == 0:
                break
            time.sleep(0.01)
        assert (endpoint.at_once, endpoint.count) == (0, 1)


def test_a_forked_process_asks_on_its_own(chat):
    """A process that was forked has the background loop's memory, and not its thread."""
    code = (
        "import os, sys\n"
        "from rm_gallery.core.models import OpenAIChatModel\n"
        "model = OpenAIChatModel('judge', sys.argv[1])\n"
        "ask = lambda: model.chat([{'role': 'user', 'content': 'hi'}]).text\n"
        "assert ask() == 'hi'\n"
        "child = os.fork()\n"
        "assert ask() == 'hi'\n"
        "os._exit(0) if child == 0 else sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    with Endpoint() as endpoint:
        subprocess.run([sys.executable, "-c", code, endpoint.base_url], check=True, timeout=60)
    assert endpoint.count == 3


# -- the key


def test_the_key_is_shown_nowhere(chat, caplog):
    caplog.set_level(logging.DEBUG)
    echoes = [
        status(500, message=f"no {KEY}"),
        status(400, message=f"no {KEY}"),
        status(401, message=f"incorrect key {KEY[:8]}***{KEY[-4:]}"),
        status(403, message=f"{KEY} may not"),
        sent(200, f"<html>{KEY}".encode()),
        sent(200, f'{{"{KEY}'.encode()),
        sent(400, KEY.encode()),
        dropped(),
        hang(30),
    ]
    seen = []
    with Endpoint(script=[normal(), *echoes], api_key=KEY) as endpoint:
        model = chat(endpoint, max_retries=0, timeout=0.3)
        model.chat(ask())
        for _ in echoes:
            with pytest.raises(ChatError) as caught:
                model.chat(ask())
            error = caught.value
            seen += [
                str(error),
                repr(error),
                repr(vars(error)),
                repr(error.__cause__),
                repr(error.__context__),
            ]
            seen += traceback.format_exception(type(error), error, error.__traceback__)
        seen += [repr(model), repr(vars(model)), repr(vars(model._transport)), str(model.totals)]
        with pytest.raises(ChatError, match=r"check api_key, or OPENAI_API_KEY \(none was given\)"):
            chat(endpoint, api_key="").chat(ask())
        assert all(headers["authorization"] == f"Bearer {KEY}" for headers in endpoint.headers[:-1])
        assert "authorization" not in endpoint.headers[-1]
    told = "\n".join([*seen, caplog.text])
    assert "HTTP Request" in caplog.text  # the library's own log was on
    assert KEY not in told
    assert KEY[-4:] not in told


@settings(max_examples=25)
@given(st.integers(0, 320), st.sampled_from([200, 400, 500]))
def test_no_part_of_the_key_is_shown_where_a_message_is_cut(position, code):
    """Bodies of any length that repeat the key, at any place in them."""
    with Endpoint(script=lambda *_: sent(code, b"x" * position + KEY.encode() + b"y" * 90)) as endpoint:
        model = OpenAIChatModel("judge", endpoint.base_url, api_key=KEY, max_retries=0)
        with pytest.raises(ChatError) as caught:
            model.chat(ask())
        model.close()
    assert KEY[:6] not in str(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\n{KEY}", f"{KEY} {KEY}", f"{KEY}é", f"{KEY}\x00"])
def test_a_key_that_no_header_carries_is_refused_without_being_told(key):
    with pytest.raises(ConfigError) as caught:
        OpenAIChatModel("judge", "http://127.0.0.1:1/v1", api_key=key)
    assert KEY not in str(caught.value)


def test_a_key_read_from_a_file_may_end_its_line(chat):
    with Endpoint(api_key=KEY) as endpoint:
        assert chat(endpoint, api_key=f"{KEY}\n").chat(ask("in")).text == "in"


def test_key_and_address_come_from_the_environment(monkeypatch):
    with Endpoint(api_key=KEY) as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url + "/")
        model = OpenAIChatModel("judge")
        assert model.chat(ask("found")).text == "found"
        assert model.base_url == endpoint.base_url
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        OpenAIChatModel("gpt-5")


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{KEY}@host/v1",
        f"https://host/v1?key={KEY}",
        "127.0.0.1:8000",
        "ftp://host",
        "http://[1/v1",
        "http://a b/v1",
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url):
    with pytest.raises(ConfigError, match="base_url") as caught:
        OpenAIChatModel("judge", url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_retries": -1}, {"max_concurrency": 0}])
def test_an_option_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError, match="expected"):
        OpenAIChatModel("judge", "http://127.0.0.1:1/v1", **options)


# -- what is sent and what comes back


@settings(max_examples=40)
@given(st.lists(st.text(st.characters()), min_size=1, max_size=4))
def test_any_text_arrives_as_it_left(echo, texts):
    """Line breaks, quotes, other scripts, and halves of surrogate pairs, which no UTF-8 can hold."""
    assert [echo.chat(ask(text)).text for text in texts] == texts


def test_a_request_holds_what_was_asked_and_nothing_else(chat):
    with Endpoint() as endpoint:
        model = chat(endpoint, temperature=0.5, max_tokens=9, extra_body={"top_k": 3, "seed": None})
        model.chat(ask("a"))
        model.chat(ask("b"), temperature=0, max_tokens=5, n=2, logprobs=4, seed=7, top_p=0.9)
        chat(endpoint).chat(ask("c"))
    always = {"model": "judge", "top_k": 3}
    assert endpoint.requests == [
        {**always, "messages": ask("a"), "temperature": 0.5, "max_tokens": 9},
        {
            **always,
            "messages": ask("b"),
            **{"temperature": 0, "max_tokens": 5, "n": 2, "logprobs": True, "top_logprobs": 4, "top_p": 0.9},
        },
        {"model": "judge", "messages": ask("c")},
    ]


def test_newer_models_get_the_length_under_its_newer_name(chat):
    refusal = status(400, code="unsupported_parameter", param="max_tokens")

    def script(_, body):
        return refusal if "max_tokens" in body else normal()

    with Endpoint(script=script) as endpoint:
        model = chat(endpoint)
        assert model.chat(ask("a"), max_tokens=5).text == "a"
        assert model.chat(ask("b"), max_tokens=6).text == "b"
        assert [body.get("max_completion_tokens") for body in endpoint.requests] == [None, 5, 6]
        with pytest.raises(ChatError, match="answered 400"):  # where one insists on the old name, no loop
            chat(endpoint, extra_body={"max_tokens": 5}).chat(ask("a"), max_tokens=5)


def test_samples_come_as_many_as_the_server_gives(chat):
    with Endpoint(answer=lambda body: Reply("x", finish_reason="length")) as endpoint:
        response = chat(endpoint).chat(ask(), n=3)
        assert (response.texts, response.finish_reasons) == (("x",) * 3, ("length",) * 3)
        endpoint.ignores_n = True
        assert chat(endpoint).chat(ask(), n=3).texts == ("x",)


def test_log_probabilities_are_a_plain_structure(chat):
    tokens = (Token("4", -0.1, (("4", -0.1), ("3", -2.5))), Token("!", -0.2))
    with Endpoint(answer=lambda body: Reply(tokens=tokens)) as endpoint:
        response = chat(endpoint).chat(ask(), logprobs=2)
        [found] = response.logprobs
        assert [(t.token, t.logprob, t.top) for t in found] == [(t.text, t.logprob, t.top) for t in tokens]
        assert response.text == "4!"
        assert chat(endpoint).chat(ask()).logprobs == (None,)


def test_tokens_and_cost_are_summed(chat):
    texts = ["one", "one two", "one two three"]
    with Endpoint(script=[normal(), status(500)]) as endpoint:
        model = chat(endpoint, price=(2.0, 10.0))
        responses = [model.chat(ask(text)) for text in texts]
        assert [response.prompt_tokens for response in responses] == [words(text) for text in texts]
        assert [response.cost for response in responses] == pytest.approx([12e-6, 24e-6, 36e-6])
        endpoint.usage = False
        silent = model.chat(ask("four"))
        assert (silent.prompt_tokens, silent.cost) == (None, None)
    totals = model.totals
    assert (totals.prompt_tokens, totals.completion_tokens, totals.uncounted) == (6, 6, 1)
    assert (totals.requests, totals.retries, totals.answered, totals.failed) == (5, 1, 4, 0)
    assert totals.cost == pytest.approx(72e-6)
    assert model.price == Price(input=2.0, output=10.0)
    assert chat(endpoint).totals.cost is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": None}, ""),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]}, "in parts"),
        ({"content": "", "reasoning_content": "hm"}, ""),
    ],
)
def test_a_message_may_take_other_forms(message, expected, chat):
    body = json.dumps({"choices": [{"message": message}], "usage": None}).encode()
    with Endpoint(script=[sent(200, body)]) as endpoint:
        assert chat(endpoint).chat(ask()).text == expected


# -- the package


def test_the_page_about_models_runs(tiny_model, tmp_path, monkeypatch, one_thread):
    """Its blocks one after the other, as in a notebook, with an endpoint where the page has one."""
    judge = shutil.copytree(tiny_model, tmp_path / "runs" / "judge" / "actor_latest")
    save_task(judge, "pointwise", PointwiseTask(), max_response_length=4)
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)

    def answer(body):
        return '{"score": 4}' if "JSON" in body["messages"][0]["content"] else "<score>4</score>"

    with Endpoint(answer=answer) as endpoint:
        places = {}
        for block in [blocks[0], blocks[2], blocks[3], blocks[1]]:
            source = block.replace("http://127.0.0.1:8000/v1", endpoint.base_url)
            code = compile(source, "models.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(code, places)  # noqa: S307 - our own page
            if waiting is not None:
                asyncio.run(waiting)
    assert endpoint.count == 4
    assert places["answer"].verdict == 4
    assert places["model"].task.name == "pointwise"
    places["model"].close()


def test_importing_the_models_is_light():
    code = (
        "import sys, rm_gallery.core.models as models\n"
        "print([m for m in ('httpx', 'pydantic', 'torch', 'asyncio') if m in sys.modules])\n"
        "models.OpenAIChatModel\n"
        "print([m for m in ('httpx', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"
    with pytest.raises(AttributeError):
        models.OpenAIChatModell  # noqa: B018


def test_a_script_that_asked_ends_quietly():
    """The background thread does not hold the interpreter up, nor complain at its end."""
    code = (
        "import sys, asyncio\n"
        "from rm_gallery.core.models import OpenAIChatModel\n"
        "model = OpenAIChatModel('judge', sys.argv[1])\n"
        "print(asyncio.run(model.achat([{'role': 'user', 'content': 'hi'}])).text)\n"
    )
    with Endpoint() as endpoint:
        command = [sys.executable, "-c", code, endpoint.base_url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("hi\n", "")
