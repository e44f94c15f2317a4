"""verl's reward over HTTP, awaited many times at once as verl's reward loop does. With real verl: tests/verl."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys

import numpy as np
import pytest

from examples.reward.verl_reward import compute_score
from rm_gallery.core.errors import DataError, MissingReward
from rm_gallery.core.rewards import verl
from rm_gallery.core.tasks import PointwiseTask
from tests.conftest import ROOT
from tests.endpoint import normal, status
from tests.rewards.test_service import ScoreEndpoint
from tests.service import serving

pytestmark = pytest.mark.usefixtures("one_thread")
ROW = {"data_source": "ours", "ground_truth": "anything"}


@pytest.fixture(scope="module")
def service(tiny_model):
    with serving(tiny_model, "pointwise") as running:
        yield running


def pay(texts, url, **extra_info):
    async def all_at_once():
        paid = (compute_score(**ROW, solution_str=text, extra_info=extra_info, url=url) for text in texts)
        return await asyncio.gather(*paid)

    return asyncio.run(all_at_once())


def test_verl_knows_it_for_a_coroutine_function():
    assert inspect.iscoroutinefunction(compute_score)


def test_each_rollout_earns_the_services_own_score(service):
    texts = [f"answer {'x' * i}" for i in range(40)]
    wanted = service.results("/v1/score", [{"query": "Why?", "response": text} for text in texts])
    found = pay(texts, service.url, query="Why?")
    assert [set(one) for one in found] == [{"score"}] * 40
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in wanted], abs=1e-5)
    task = PointwiseTask()
    row = {"input": [{"role": "user", "content": "Why?"}], "output": {"content": texts[0]}}
    [answer] = service.subject.judge.answer(task, [task.messages(row)], mode="expected", max_new_tokens=8)
    assert found[0]["score"] == pytest.approx(answer.value(task), abs=1e-5)


def test_the_query_is_found_where_datasets_put_it(service):
    turns = [{"role": "user", "content": "Why?"}]
    [plain] = pay(["a"], service.url, question="Why?", index=3)
    for extra in (
        {"query": "Why?"},
        {"prompt": "Why?", "question": "not this"},
        {"messages": turns},
        {"messages": np.array(turns, dtype=object)},
    ):
        assert pay(["a"], service.url, **extra)[0] == pytest.approx(plain)
    named = compute_score(**ROW, solution_str="a", extra_info={"q": "Why?"}, url=service.url, query_key="q")
    assert asyncio.run(named) == pytest.approx(plain)


@pytest.mark.parametrize(
    ("extra", "options", "said"),
    [
        (None, {}, "extra_info of a row of ours holds no messages, query, prompt or question"),
        ({"query": None}, {}, "holds no messages"),
        ({"query": "q"}, {"query_key": "ask"}, "holds no ask"),
    ],
)
def test_a_row_without_its_query_is_refused(extra, options, said):
    with pytest.raises(DataError, match=said):
        asyncio.run(
            compute_score(**ROW, solution_str="a", extra_info=extra, url="http://127.0.0.1:1", **options)
        )


def score(endpoint, text, **options):
    url = endpoint.base_url.removesuffix("/v1")
    return asyncio.run(compute_score(**ROW, solution_str=text, extra_info={"query": "q"}, url=url, **options))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("rm_gallery.core.models.retry.Backoff.delay", lambda *_: 0.0)


@pytest.mark.usefixtures("quick")
def test_a_missing_score_is_an_error_that_names_its_cause_and_never_a_number():
    with (
        ScoreEndpoint() as endpoint,
        pytest.raises(MissingReward, match="no reward for a rollout of ours: unparsable: no verdict"),
    ):
        score(endpoint, "no number")
    with (
        ScoreEndpoint(script=lambda *_: status(500, message="gone")) as endpoint,
        pytest.raises(MissingReward, match=r"answered 500: gone \(3 attempts\)"),
    ):
        score(endpoint, "1", max_retries=2)


@pytest.mark.usefixtures("quick")
def test_a_service_that_comes_back_is_asked_again():
    def script(number, body):
        return status(503) if number < 4 else normal()

    with ScoreEndpoint(script=script) as endpoint:
        assert score(endpoint, "2") == {"score": 2.0}
        assert endpoint.count == 5
    verl._client.cache_clear()


def test_the_example_runs_as_a_script(service):
    done = subprocess.run(
        [sys.executable, "examples/reward/verl_reward.py", service.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert 0 <= float(first.split()[0]) <= 4
    assert "weather" in second


def test_a_turn_without_a_text_is_empty_and_one_of_another_kind_has_no_reward(service):
    """A tool's call has no content; `str` of it would be judged."""
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": None}]
    asked = {"role": "user", "content": "And?"}
    [found] = pay(["a"], service.url, messages=[*turns, asked])
    [wanted] = pay(["a"], service.url, messages=[turns[0], {"role": "assistant", "content": ""}, asked])
    assert found == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(MissingReward, match="messages: the user's turn holds list, and a judge reads text"):
        pay(["a"], service.url, messages=[{"role": "user", "content": [{"type": "image"}]}])
