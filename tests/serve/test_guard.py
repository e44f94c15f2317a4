"""The key, the limits, the host's name, and what a client that leaves costs."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import threading
from itertools import product
from urllib.parse import urlsplit

import httpx
import pytest

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.serve import Settings
from rm_gallery.core.serve.run import check_exposure, listen
from tests.serve.held import HeldJudge, ask, until
from tests.service import serving

KEY = "correct horse"
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "MADEUP")
ITEM = {"query": "What is 2 + 3?", "response": "It is 5."}


@pytest.fixture(scope="module")
def locked(tiny_model):
    with serving(tiny_model, "pointwise", api_key=KEY, max_body=100_000, max_items=8) as running:
        yield running


def paths(running):
    return [
        *running.server.config.app.openapi()["paths"],
        "/",
        "/openapi.json",
        "/docs",
        "/nowhere",
        "/v1/../x",
        "//",
    ]


# -- the key


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, "Bearer", "", "Basic !!", f"Token {KEY}"],
)
def test_a_wrong_key_learns_nothing(locked, header):
    """One answer for every path, method and body, known or not: not even which of them there are."""
    answers = set()
    with httpx.Client(base_url=locked.url, headers={"Authorization": header}) as client:
        for path, method, content in product(paths(locked), METHODS, (b"", b"{", b'{"items": []}')):
            response = client.request(method, path, content=content)
            kept = {k: v for k, v in response.headers.items() if k not in ("date", "content-length")}
            text = response.text if method != "HEAD" else None
            answers.add((response.status_code, text, frozenset(kept.items())))
    assert {status for status, _, _ in answers} == {401}
    assert len({text for _, text, _ in answers if text is not None}) == 1
    assert len({headers for _, _, headers in answers}) == 1
    assert all(locked.subject.name not in (text or "") for _, text, _ in answers)


def test_without_a_key_there_is_the_page_and_the_pulse(locked):
    open_ = {path for path in paths(locked) if httpx.get(locked.url + path).status_code != 401}
    assert open_ == {"/", "/healthz"}
    for path in open_:
        assert locked.subject.name not in httpx.get(locked.url + path).text


def test_the_right_key_is_known_as_a_bearer_and_in_a_url(locked):
    assert locked.results("/v1/score", [ITEM])
    parts = urlsplit(locked.url)
    url = f"http://anyone:{KEY.replace(' ', '%20')}@{parts.netloc}/v1/score"  # as OpenRLHF can be told it
    assert httpx.post(url, json={"items": [ITEM]}).status_code == 200
    basic = base64.b64encode(f"anyone:{KEY}".encode()).decode()
    assert httpx.get(locked.url + "/metrics", headers={"Authorization": f"bAsIc {basic}"}).status_code == 200


def test_a_key_may_be_any_text(tiny_model):
    with serving(tiny_model, "pointwise") as running:
        assert running.http.get("/v1/models", headers={"Authorization": "Bearer any"}).status_code == 200
    for key in ("schlüssel", "with:colon"):
        with serving(HeldJudge().subject, "pointwise", api_key=key) as running:
            sent = {"Authorization": b"Bearer " + key.encode()}
            assert httpx.get(running.url + "/v1/models", headers=sent).status_code == 200
            assert httpx.get(running.url + "/v1/models").status_code == 401


def test_openapi_says_what_needs_the_key(locked):
    schema = locked.http.get("/openapi.json").json()
    assert schema["security"] == [{"key": []}]
    assert schema["paths"]["/healthz"]["get"]["security"] == []


# -- limits


def chunks(size: int):
    for _ in range(0, size, 1000):
        yield b" " * 1000


@pytest.mark.parametrize("size", [101_000, 5_000_000])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large_is_not_taken_in(locked, size, chunked):
    content = chunks(size) if chunked else b" " * size
    try:
        response = locked.http.post(
            "/v1/score", content=content, headers={"Content-Type": "application/json"}
        )
    except httpx.WriteError:  # the service closed while we still wrote
        assert size > 4 * 100_000
        return
    assert response.status_code == 413
    assert "100000 bytes" in response.json()["error"]["message"]


def test_a_body_of_just_that_size_is_taken(locked):
    body = b'{"items": [{"query": "q", "response": "r"}]}'
    padded = body + b" " * (100_000 - len(body))
    headers = {"Content-Type": "application/json"}
    assert locked.http.post("/v1/score", content=padded, headers=headers).status_code == 200
    assert locked.http.post("/v1/score", content=padded + b" ", headers=headers).status_code == 413


def test_of_thousands_that_are_no_questions_the_first_is_named(locked):
    """An error for each would be gigabytes in a body of megabytes."""
    response = locked.post("/v1/score", {"items": [{}] * 30_000})
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == "items.0.response"
    assert "more)" not in error["message"]


def test_a_request_with_too_many_questions_is_refused(locked, pairwise):
    assert len(locked.results("/v1/score", [ITEM] * 8)) == 8
    response = locked.post("/v1/score", {"items": [ITEM] * 9})
    assert response.status_code == 413
    assert "9 questions" in response.json()["error"]["message"]
    pair = {"query": "q", "response_a": "a", "response_b": "b"}
    assert locked.post("/v1/compare", {"items": [pair] * 5}).status_code == 413
    rank = {"query": "q", "responses": ["x"] * 40}
    assert pairwise.post("/v1/rank", {"items": [rank]}).status_code == 413  # 1,560 questions


def test_a_body_that_does_not_come_is_given_up():
    with serving(HeldJudge().subject, "pointwise", body_seconds=0.2) as running:
        parts = urlsplit(running.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        connection.putrequest("POST", "/v1/score")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b'{"items"')
        response = connection.getresponse()
        assert response.status == 408
        assert b"within 0.2 seconds" in response.read()


def test_a_full_queue_says_when_to_come_again():
    judge = HeldJudge()
    with serving(judge.subject, "pointwise", max_queue=4) as running:
        threads = [
            threading.Thread(target=running.post, args=("/v1/score", ask(text, count)))
            for text, count in (("first", 1), ("second", 4))
        ]
        threads[0].start()
        assert judge.started.wait(10)
        threads[1].start()
        queue = running.server.config.app.state.service.batcher
        until(lambda: queue.waiting == 4)
        response = running.post("/v1/score", ask("third"))
        assert response.status_code == 429
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert "4 questions wait" in response.json()["error"]["message"]
        judge.release.set()
        for thread in threads:
            thread.join(10)
        assert running.post("/v1/score", ask("fourth")).status_code == 200
    assert len(judge.seen) == 6


def test_bodies_have_a_size_together():
    """32 bodies' worth of what is read or answered; what comes beyond is told to come again."""
    with serving(HeldJudge().subject, "pointwise", max_body=1000) as running, contextlib.ExitStack() as open_:
        parts = urlsplit(running.url)
        sockets = [
            open_.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=10))
            for _ in range(34)
        ]
        head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        for one in sockets[:33]:  # 31,350 bytes of 32,000, and none of them whole
            one.sendall(head + b" " * 950)
        until(lambda: running.server.gate.inside == 33)
        sockets[33].sendall(head + b" " * 950)
        refused = sockets[33].recv(4096).lower()
        assert b" 429 " in refused
        assert b"retry-after: 1" in refused
        for one in sockets:
            one.close()
        until(lambda: running.server.gate.inside == 0)
        assert running.http.get("/healthz").status_code == 200


def test_texts_that_stand_in_many_questions_count_in_each():
    with serving(HeldJudge().subject, "pairwise", max_body=10_000) as running:
        rank = {"query": "q", "responses": ["x" * 300] * 30}  # 870 questions of 600 characters
        response = running.post("/v1/rank", {"items": [rank]})
        assert response.status_code == 413
        assert "characters" in response.json()["error"]["message"]


def test_the_questions_of_a_client_that_left_are_not_asked():
    judge = HeldJudge()
    with serving(judge.subject, "pointwise") as running:
        first = threading.Thread(target=running.post, args=("/v1/score", ask("first")))
        first.start()
        assert judge.started.wait(10)
        queue = running.server.config.app.state.service.batcher
        with pytest.raises(httpx.ReadTimeout):
            running.post("/v1/score", ask("left", 3), timeout=0.3)
        until(lambda: queue.waiting == 0)
        judge.release.set()
        first.join(10)
        running.post("/v1/score", ask("last"))
    assert len(judge.seen) == 2
    assert not any("left" in text for text in judge.seen)


# -- where it listens


def test_only_the_loopback_is_open_without_a_key():
    with listen("127.0.0.1", 0) as loopback:
        assert "localhost" in check_exposure(loopback, Settings()).hosts
        assert check_exposure(loopback, Settings(api_key="k")).hosts is None
    with listen("0.0.0.0", 0) as everywhere:
        with pytest.raises(ConfigError, match="--without-key"):
            check_exposure(everywhere, Settings())
        assert check_exposure(everywhere, Settings(api_key="k")).hosts is None
        assert check_exposure(everywhere, Settings(), without_key=True).hosts is None


def test_a_port_that_is_taken_and_a_host_that_is_not_there_are_sentences():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1, port {port}"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 8000)


def test_a_name_that_someone_else_points_at_the_service_is_refused(tiny_model):
    """A web page whose name suddenly means 127.0.0.1 would otherwise be asked from any browser here."""
    with serving(tiny_model, "pointwise", hosts=("localhost", "127.0.0.1")) as running:
        port = urlsplit(running.url).port
        for name, status in (
            (f"localhost:{port}", 200),
            ("127.0.0.1", 200),
            (f"LOCALHOST:{port}", 200),
            ("evil.example", 403),
            (f"127.0.0.1.evil.example:{port}", 403),
            ("", 403),
        ):
            assert running.http.get("/healthz", headers={"Host": name}).status_code == status, name


# -- headers


def test_answers_are_not_kept_nor_taken_for_something_else(pointwise):
    for path in ("/", "/healthz", "/v1/models", "/nowhere", "/metrics"):
        headers = pointwise.http.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_garbage_on_the_wire_leaves_the_service_up(pointwise):
    parts = urlsplit(pointwise.url)
    for sent in (
        b"\x00\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            connection.sendall(sent)
            assert b" 400 " in connection.recv(4096)[:64]
    assert pointwise.http.get("/healthz").status_code == 200
