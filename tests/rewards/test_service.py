"""The client of the scoring service: every item has its own score, or the cause why not, whatever the service does."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models import Backoff
from rm_gallery.core.rewards.scored import Scored
from rm_gallery.core.rewards.service import ServiceClient
from tests.endpoint import Endpoint, dropped, hang, normal, sent, status, truncated

QUICK = Backoff(first=0.001, longest=0.01, longest_asked=0.2)


@dataclass
class ScoreEndpoint(Endpoint):
    """Scores a response that is a number with that number, and has a problem with any other."""

    path: str = "/v1/score"

    def completion(self, body):
        return {"results": [self.scored(item["response"]) for item in body["items"]], "model": "m"}

    def scored(self, response):
        try:
            return {"score": float(response), "verdict": response, "mass": 1.0, "problem": ""}
        except ValueError:
            return {"score": None, "verdict": None, "problem": "unparsable: no verdict"}


def items(responses):
    return [{"query": "q", "response": response} for response in responses]


@pytest.fixture
def client():
    made = []

    def make(endpoint, **options):
        url = endpoint.base_url.removesuffix("/v1")
        made.append(ServiceClient(url, **{"backoff": QUICK, "timeout": 5, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_every_item_has_its_own_score_in_order(client):
    with ScoreEndpoint() as endpoint:

        @settings(max_examples=40)
        @given(st.lists(st.integers(0, 99).map(str) | st.just("none"), max_size=20), st.integers(1, 9))
        def check(responses, size):
            found = client(endpoint, batch_size=size).score(items(responses))
            wanted = [None if text == "none" else float(text) for text in responses]
            assert [one.score for one in found] == wanted
            assert [bool(one.problem) for one in found] == [score is None for score in wanted]

        check()


def test_a_service_that_fails_in_every_way_loses_no_item(client):
    kinds = [status(500), status(429, headers={"Retry-After": "0"}), dropped(), truncated(), status(503)]

    def script(number, body):
        draw = random.Random(number)
        return draw.choice(kinds) if draw.random() < 0.4 else normal()

    responses = [str(i) for i in range(200)]
    with ScoreEndpoint(script=script) as endpoint:
        made = client(endpoint, batch_size=3, max_retries=30)
        assert [one.score for one in made.score(items(responses))] == [float(text) for text in responses]
        assert endpoint.count > 200 / 3
        assert endpoint.most_at_once <= 16


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (status(500, message="out of order"), "answered 500: out of order (3 attempts)"),
        (status(401), "check api_key, or RMG_API_KEY (none was given)"),
        (status(404), "answered 404"),
        (dropped(), "broke the connection off"),
        (hang(20), "did not answer within 0.3 s (3 attempts)"),
        (sent(200, b"<html>"), "is no service of rmg serve"),
        (sent(200, b'{"results": []}'), "gave 0 scores for 2 items"),
        (
            sent(200, b'{"results": [{"score": 1}, {}]}'),
            "sent no list of scores: results.1.score: Field required",
        ),
        (
            sent(200, b'{"results": [{"score": NaN}, {"score": 1}]}'),
            "sent no list of scores: results.0.score",
        ),
    ],
)
def test_what_stays_undone_has_its_cause_and_no_score(client, behaviour, said):
    with ScoreEndpoint(script=lambda *_: behaviour) as endpoint:
        found = client(endpoint, timeout=0.3, max_retries=2).score(items("12"))
    assert [one.score for one in found] == [None, None]
    assert all(one.problem.startswith("failed: http://127.0.0.1") and said in one.problem for one in found)


def test_nobody_there():
    [found] = ServiceClient("http://127.0.0.1:1", max_retries=0).score(items("1"))
    assert found.problem.startswith("failed: http://127.0.0.1:1 could not be reached")


@pytest.mark.parametrize("code", [413, 422])
def test_what_is_refused_for_its_size_or_for_one_item_is_asked_in_halves(client, code):
    def script(number, body):
        responses = [item["response"] for item in body["items"]]
        bad = len(responses) > 2 if code == 413 else "bad" in responses
        return status(code, message="no") if bad else normal()

    responses = ["0", "1", "bad", "3", "4"] if code == 422 else [str(i) for i in range(9)]
    with ScoreEndpoint(script=script) as endpoint:
        found = client(endpoint).score(items(responses))
    assert [one.score for one in found] == [None if text == "bad" else float(text) for text in responses]
    assert code == 413 or found[2] == Scored(None, None, f"failed: {endpoint.base_url[:-3]} answered 422: no")


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(client, monkeypatch):
    monkeypatch.setenv("RMG_API_KEY", "a-key-of-ours")
    with ScoreEndpoint(api_key="a-key-of-ours") as endpoint:
        made = client(endpoint)
        assert made.score(items("3"))[0].score == 3
        wrong = client(endpoint, api_key="another-key-of-ours").score(items("3"))[0]
    assert "refused the API key" in wrong.problem
    assert "of-ours" not in wrong.problem + repr(made) + str(vars(made))


def test_one_client_serves_several_loops(client):
    with ScoreEndpoint() as endpoint:
        made = client(endpoint)
        assert [asyncio.run(made.ascore(items(text)))[0].score for text in "123"] == [1, 2, 3]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1/"]
)
def test_an_address_may_end_in_v1(url):
    assert ServiceClient(url).url == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("url", "options"), [("127.0.0.1:8000", {}), ("http://a", {"batch_size": 0}), ("http://u:p@host", {})]
)
def test_arguments_that_cannot_be_are_refused(url, options):
    with pytest.raises(ConfigError):
        ServiceClient(url, **options)
