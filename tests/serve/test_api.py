"""What the service answers is what the model answers without it, whoever asks at the same time."""

from __future__ import annotations

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise as neighbours

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rm_gallery.core.data.samples import Message, Pair, Sample
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge import Answer
from rm_gallery.core.judge.endpoint import EndpointJudge
from rm_gallery.core.judge.orders import outcome
from rm_gallery.core.judge.scalar import ScalarJudge
from rm_gallery.core.judge.subject import Candidate, Subject
from rm_gallery.core.models import OpenAIChatModel
from rm_gallery.core.serve import Settings, create_app
from rm_gallery.core.serve.asking import ranks, scored
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask
from rm_gallery.core.tasks.saved import save_task
from tests.endpoint import Endpoint, normal, status
from tests.judge.test_scalar import decoder, encoder
from tests.service import serving

TEXTS = ["Paris.", "I will not say.", "", "long " * 60, "Ünïcödé 😀", "Paris."]
QUERIES = ["What is the capital of France?", "x", "again " * 40]
ITEMS = [{"query": query, "response": text} for query in QUERIES for text in TEXTS]
PAIRS = [
    {"query": query, "response_a": a, "response_b": b}
    for query, (a, b) in zip(QUERIES * 2, neighbours(TEXTS), strict=False)
]
THREE_TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "And now?"},
]


def turns(item):
    if "query" in item:
        return (Message("user", item["query"]),)
    return tuple(Message(turn["role"], turn["content"]) for turn in item["messages"])


def answers(running, task, rows, mode):
    """Of the judge itself, all at once."""
    asked = [task.messages(row.to_row()) for row in rows]
    return running.subject.judge.answer(task, asked, mode=mode, max_new_tokens=32)


def one_by_one(running, path, items, **more):
    """Each item in a request of its own, sixteen at a time."""
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda item: running.results(path, [item], **more)[0], items)
        return list(found)


# -- score


@pytest.mark.parametrize("mode", ["expected", "greedy"])
def test_scores_are_the_judges_own(pointwise, mode):
    items = [*ITEMS, {"messages": THREE_TURNS, "response": "Now it is noon."}]
    direct = answers(pointwise, PointwiseTask(), [Sample(turns(i), i["response"], {}) for i in items], mode)
    together = pointwise.results("/v1/score", items, mode=mode)
    alone = one_by_one(pointwise, "/v1/score", items, mode=mode)
    for answer, *found in zip(direct, together, alone, strict=True):
        for result in found:
            assert result["verdict"] == answer.verdict
            assert result["problem"] == answer.problem
            assert result["score"] == pytest.approx(answer.value(PointwiseTask()), abs=1e-4)
            assert result["mass"] == pytest.approx(answer.mass, abs=1e-4)
            if mode == "expected":
                assert list(result["probabilities"]) == ["0", "1", "2", "3", "4"]
                assert list(result["probabilities"].values()) == pytest.approx(answer.probabilities, abs=1e-4)
            else:
                assert result["probabilities"] is None
    if mode == "expected":
        assert len({result["score"] for result in together}) > 10, "else the comparison could not fail"


def test_the_mode_is_expected_where_none_is_named(pointwise):
    body = pointwise.post("/v1/score", {"items": ITEMS[:1]}).json()
    assert (body["mode"], body["task"], body["model"]) == ("expected", "pointwise", pointwise.subject.name)
    assert body["results"] == pointwise.results("/v1/score", ITEMS[:1], mode="expected")


def test_an_answer_that_cannot_be_read_is_a_problem_and_no_number(pointwise):
    """The tiny model writes noise."""
    for result in pointwise.results("/v1/score", ITEMS, mode="greedy"):
        assert result["problem"].startswith("unparsable: ")
        assert (result["score"], result["verdict"], result["probabilities"], result["mass"]) == (None,) * 4


def test_a_bad_item_leaves_the_others_alone(pointwise):
    bad = [
        {"query": " ", "response": "x"},
        {"messages": [], "response": "x"},
        {"query": "y" * 5000, "response": "beyond the context of 2048"},
    ]
    found = pointwise.results("/v1/score", [ITEMS[0], bad[0], ITEMS[1], *bad[1:], ITEMS[2]])
    kinds = [result["problem"].partition(":")[0] for result in found]
    assert kinds == ["", "failed", "", "failed", "overlong", ""]
    clean = pointwise.results("/v1/score", ITEMS[:3])
    assert [found[i]["score"] for i in (0, 2, 5)] == pytest.approx([r["score"] for r in clean], abs=1e-4)
    assert [found[i]["score"] for i in (1, 3, 4)] == [None] * 3


def test_a_judge_of_pairs_has_no_score_for_one(pairwise):
    response = pairwise.post("/v1/score", {"items": ITEMS[:1]})
    assert response.status_code == 400
    assert "/v1/compare" in response.json()["error"]["message"]


def test_several_dimensions_come_to_their_weighted_mean(tiny_model):
    task = MultiDimensionTask(weights={"helpfulness": 2, "correctness": 1, "relevance": 1})
    with serving(tiny_model, task) as running:
        [result] = running.results("/v1/score", ITEMS[:1])
        [answer] = answers(running, task, [Sample(turns(ITEMS[0]), TEXTS[0], {})], "expected")
    assert result["verdict"] == answer.verdict
    means = {
        name: sum(p * verdict[name] for p, verdict in zip(answer.probabilities, task.verdicts(), strict=True))
        for name in task.dimensions
    }
    assert result["score"] == pytest.approx(sum(task.weights[n] * means[n] for n in means), abs=1e-4)
    for name, alone in result["probabilities"].items():
        assert list(alone) == list("01234")
        assert sum(alone.values()) == pytest.approx(1)
        assert sum(p * int(score) for score, p in alone.items()) == pytest.approx(means[name], abs=1e-4)
    assert list(result["probabilities"]) == list(task.dimensions)


class Letters(PointwiseTask):
    """A task of one's own whose verdicts are no numbers."""

    def verdicts(self):
        return ["good", "bad"]

    def format(self, verdict):
        return f"<verdict>{verdict}</verdict>"


def test_a_verdict_that_is_no_number_is_no_score(tiny_model):
    with serving(tiny_model, Letters()) as running:
        [result] = running.results("/v1/score", ITEMS[:1])
    assert result["verdict"] in ("good", "bad")
    assert result["score"] is None
    assert result["problem"].startswith("failed: ")


def test_a_number_that_is_not_finite_is_no_score(tmp_path, monkeypatch):
    monkeypatch.setattr(ScalarJudge, "_forest", lambda self, encoded: iter([(list(encoded), [[math.nan]])]))
    with serving(decoder(tmp_path)) as running:
        [result] = running.results("/v1/score", ITEMS[:1])
    assert result["score"] is None
    assert "not finite" in result["problem"]


def test_numbers_of_verdicts():
    assert PointwiseTask().number(3) == 3.0
    assert PairwiseTask().number("A") is None
    assert scored(Answer(problem="failed: x"), PointwiseTask()).score is None


# -- compare


@pytest.mark.parametrize("mode", ["expected", "greedy"])
def test_both_orders_are_asked_and_combined(pairwise, mode):
    task = PairwiseTask()
    rows = [Pair(turns(item), item["response_a"], item["response_b"], "tie") for item in PAIRS]
    forward = answers(pairwise, task, rows, mode)
    swapped = answers(pairwise, task, [row.swap() for row in rows], mode)
    found = pairwise.results("/v1/compare", PAIRS, mode=mode)
    for first, second, result in zip(forward, swapped, found, strict=True):
        together = outcome(first, second, task.verdicts())
        assert result["verdict"] == together.preferred
        assert result["orders"]["forward"]["verdict"] == together.forward
        assert result["orders"]["swapped"]["verdict"] == together.swapped
        assert result["scores"] is None
        if mode == "greedy":  # noise, which is no verdict
            assert result["probabilities"] is result["consistent"] is None
            assert result["problem"].startswith("unparsable")
            continue
        assert result["consistent"] == (together.forward == together.swapped)
        a, b, tie = first.probabilities
        b2, a2, tie2 = second.probabilities  # shown the other way round
        assert result["orders"]["swapped"]["probabilities"] == pytest.approx(
            {"A": a2, "B": b2, "tie": tie2}, abs=1e-4
        )
        mean = {"A": (a + a2) / 2, "B": (b + b2) / 2, "tie": (tie + tie2) / 2}
        assert result["probabilities"] == pytest.approx(mean, abs=1e-4)


def test_the_order_of_a_pair_does_not_matter(pairwise):
    """Swapping the responses swaps the answer, and nothing else."""
    there = pairwise.results("/v1/compare", PAIRS)
    swapped = [{**item, "response_a": item["response_b"], "response_b": item["response_a"]} for item in PAIRS]
    other = {"A": "B", "B": "A", "tie": "tie"}
    for one, two in zip(there, pairwise.results("/v1/compare", swapped), strict=True):
        assert two["verdict"] == other[one["verdict"]]
        assert {other[k]: p for k, p in two["probabilities"].items()} == pytest.approx(
            one["probabilities"], abs=1e-6
        )
        assert two["orders"]["forward"]["mass"] == pytest.approx(one["orders"]["swapped"]["mass"], abs=1e-6)


def test_a_judge_that_scores_compares_by_its_scores(pointwise):
    found = pointwise.results("/v1/compare", PAIRS)
    singles = pointwise.results(
        "/v1/score",
        [{"query": p["query"], "response": p[name]} for p in PAIRS for name in ("response_a", "response_b")],
    )
    for i, result in enumerate(found):
        a, b = singles[2 * i : 2 * i + 2]
        assert result["orders"] is result["probabilities"] is result["consistent"] is None
        assert result["scores"]["a"]["score"] == pytest.approx(a["score"], abs=1e-4)
        assert result["verdict"] == ("A" if a["score"] > b["score"] else "B")
    [same] = pointwise.results("/v1/compare", [{"query": "x", "response_a": "y", "response_b": "y"}])
    assert same["verdict"] == "tie"


@pytest.mark.parametrize("which", ["pointwise", "pairwise"])
def test_a_pair_without_a_verdict_says_why(request, which):
    running = request.getfixturevalue(which)
    long = {"query": "x", "response_a": "y", "response_b": "z" * 5000}
    bad, good = running.results("/v1/compare", [long, PAIRS[0]])
    assert bad["verdict"] is None
    assert bad["problem"].startswith("overlong: ")
    assert (good["problem"], good["verdict"] is None) == ("", False)


# -- rank


@given(st.lists(st.none() | st.floats(-5, 5), max_size=8))
def test_ranks_are_the_field_s_own(values):
    known = [value for value in values if value is not None]
    expected = iter(scipy.stats.rankdata([-value for value in known], method="min").astype(int).tolist())
    assert ranks(values) == [None if value is None else next(expected) for value in values]


def test_a_judge_that_scores_ranks_by_its_scores(pointwise):
    [ranking] = pointwise.results("/v1/rank", [{"query": QUERIES[0], "responses": TEXTS}])
    found = ranking["responses"]
    singles = pointwise.results("/v1/score", ITEMS[: len(TEXTS)])
    assert [r["score"] for r in found] == pytest.approx([s["score"] for s in singles], abs=1e-4)
    assert [r["rank"] for r in found] == ranks([r["score"] for r in found])
    assert found[0]["rank"] == found[5]["rank"], "the same text"
    assert {r["wins"] for r in found} == {None}


def test_a_judge_of_pairs_ranks_by_wins_over_all_others(pairwise):
    texts = [*TEXTS[:4], "z" * 5000]
    [ranking] = pairwise.results("/v1/rank", [{"query": "x", "responses": texts}])
    found = ranking["responses"]
    wins, ties = [0] * 5, [0] * 5
    for i in range(4):
        for j in range(i + 1, 4):
            pair = {"query": "x", "response_a": texts[i], "response_b": texts[j]}
            [result] = pairwise.results("/v1/compare", [pair])
            wins[i] += result["verdict"] == "A"
            wins[j] += result["verdict"] == "B"
            for place in (i, j):
                ties[place] += result["verdict"] == "tie"
    assert [(r["wins"], r["ties"], r["comparisons"]) for r in found[:4]] == [
        (w, t, 3) for w, t in zip(wins[:4], ties[:4], strict=True)
    ]
    assert [r["score"] for r in found[:4]] == pytest.approx(
        [(w + t / 2) / 3 for w, t in zip(wins[:4], ties[:4], strict=True)]
    )
    assert (found[4]["score"], found[4]["rank"]) == (None, None)
    assert found[4]["problem"].startswith("overlong: 4 of 4 comparisons have no verdict")
    assert found[0]["problem"].startswith("overlong: 1 of 4 comparisons have no verdict")
    [alone] = pairwise.results("/v1/rank", [{"query": "x", "responses": ["only"]}])
    assert alone["responses"][0]["score"] is None
    assert alone["responses"][0]["problem"]


# -- scalar models


@pytest.mark.parametrize("build", [decoder, encoder])
def test_a_scalar_model_gives_its_own_numbers(tmp_path, build):
    with serving(build(tmp_path / "scalar")) as running:
        items = [item for item in ITEMS if len(item["query"] + item["response"]) < 150]
        asked = [
            [{"role": "user", "content": i["query"]}, {"role": "assistant", "content": i["response"]}]
            for i in items
        ]
        direct = [answer.score for answer in running.subject.scorer.score(asked)]
        for found in (
            running.results("/v1/score", items),
            one_by_one(running, "/v1/score", items),
        ):
            assert [r["score"] for r in found] == pytest.approx(direct, abs=1e-4)
            assert {(r["verdict"], r["probabilities"], r["mass"], r["problem"]) for r in found} == {
                (None, None, None, "")
            }
        body = running.post("/v1/score", {"items": items[:1]}).json()
        assert (body["mode"], body["task"]) == ("score", "score")
        [pair] = running.results("/v1/compare", [PAIRS[0]])
        assert pair["verdict"] == (
            "A" if pair["scores"]["a"]["score"] > pair["scores"]["b"]["score"] else "B"
        )
        bad, good = running.results("/v1/score", [{"query": "y" * 5000, "response": ""}, items[0]])
        assert bad["problem"].startswith("overlong")
        assert good["problem"] == ""
        assert running.post("/v1/score", {"items": items[:1], "mode": "greedy"}).status_code == 400
        assert running.post("/v1/chat/completions", {"messages": THREE_TURNS}).status_code == 400
        [model] = running.http.get("/v1/models").json()["data"]
        assert (model["task"], model["verdicts"], model["modes"]) == ("score", [], ["score"])
        with pytest.raises(ConfigError, match="in no mode"):
            create_app(running.subject, settings=Settings(mode="greedy"))


# -- what is served


def test_the_model_says_what_it_is(pointwise, pairwise):
    [one] = pointwise.http.get("/v1/models").json()["data"]
    assert (one["task"], one["responses"], one["mode"]) == ("pointwise", 1, "expected")
    assert one["verdicts"] == ["0", "1", "2", "3", "4"]
    [two] = pairwise.http.get("/v1/models").json()["data"]
    assert (two["responses"], two["verdicts"]) == (2, ["A", "B", "tie"])


def test_a_saved_judge_brings_its_task_and_one_that_reasons_is_asked_to_write(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "judge")
    save_task(folder, "pairwise", PairwiseTask(think=True), max_response_length=4)
    with serving(folder) as running:
        body = running.post("/v1/compare", {"items": PAIRS[:1]}).json()
        assert (body["task"], body["mode"]) == ("pairwise", "greedy")
        refused = running.post("/v1/compare", {"items": PAIRS[:1], "mode": "expected"})
        assert refused.status_code == 400
        assert "only in greedy" in refused.json()["error"]["message"]


def test_a_judge_whose_template_begins_a_reasoning_is_asked_to_write(tiny_model, tmp_path):
    """Though its card does not call it a reasoning model: a verdict at once is not what it would give."""
    folder = shutil.copytree(tiny_model, tmp_path / "judge")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    tokenizer.save_pretrained(folder)
    save_task(folder, "pairwise", PairwiseTask(), max_response_length=4)
    with serving(folder) as running:
        assert running.post("/v1/compare", {"items": PAIRS[:1]}).json()["mode"] == "greedy"


def test_a_model_that_cannot_be_asked_is_refused_before_it_is_served(tiny_model):
    subject = Candidate(str(tiny_model)).open()
    with pytest.raises(ConfigError, match="--task"):
        create_app(subject)
    with pytest.raises(ConfigError, match="only in greedy"):
        create_app(subject, PointwiseTask(think=True), Settings(mode="expected"))
    create_app(subject, PointwiseTask(), Settings(mode="greedy"))

    class Nobody:
        modes = ("greedy",)
        fingerprint = ""

        def answer(self, task, conversations, **_):
            raise ConfigError("there is nobody")

    app = create_app(Subject("nobody", judge=Nobody()), PointwiseTask())
    with pytest.raises(ConfigError, match="nobody does not answer: there is nobody"):
        app.state.service.try_out()


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"mode": "vote"}, "mode"),
        ({"max_batch": 0}, "max_batch"),
        ({"max_queue": 0, "max_body": 0}, "max_queue, max_body"),
        ({"api_key": " "}, "empty"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_, said):
    with pytest.raises(ConfigError, match=said):
        Settings(**settings_)


def test_the_key_is_in_no_repr():
    assert "secret" not in repr(Settings(api_key="secret"))


def test_the_figures_are_counted(pointwise):
    def figures():
        lines = pointwise.http.get("/metrics").text.splitlines()
        parts = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in parts}

    before = figures()
    items = [*ITEMS[:5], {"query": "y" * 5000, "response": "x"}]
    pointwise.results("/v1/score", items)
    pointwise.http.get("/made/up/1")
    pointwise.http.get("/made/up/2")
    after = figures()

    def grew(name):
        return after[name] - before.get(name, 0)

    assert grew('rmg_requests_total{method="POST",path="/v1/score",status="200"}') == 1
    assert grew('rmg_requests_total{method="GET",path="other",status="404"}') == 2
    assert grew('rmg_request_seconds_count{path="/v1/score"}') == 1
    assert grew("rmg_batch_size_sum") == 6
    assert grew('rmg_problems_total{kind="overlong"}') == 1
    tokens = pointwise.subject.judge.encode(
        [PointwiseTask().messages(Sample(turns(item), item["response"], {}).to_row()) for item in items]
    )
    assert grew('rmg_tokens_total{kind="prompt"}') == sum(map(len, tokens))
    assert after["rmg_queue_length"] == 0
    assert not any("made/up" in name for name in after)


@settings(max_examples=25)
@given(st.lists(st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5), min_size=1, max_size=8))
def test_whatever_is_asked_together_everyone_gets_their_own(pointwise, requests):
    alone = {json.dumps(item): result for item, result in zip(ITEMS, _alone(pointwise), strict=True)}
    with ThreadPoolExecutor(len(requests)) as pool:
        for items, results in zip(
            requests, pool.map(lambda items: pointwise.results("/v1/score", items), requests), strict=True
        ):
            expected = [alone[json.dumps(item)]["score"] for item in items]
            assert [result["score"] for result in results] == pytest.approx(expected, abs=1e-4)


_known: list = []


def _alone(running):
    if not _known:
        _known.extend(running.results("/v1/score", [item])[0] for item in ITEMS)
    return _known


# -- a judge behind an endpoint


def test_an_endpoint_can_be_served_too():
    """Its failures are its questions' problems."""
    with Endpoint(lambda body: "<score>3</score>", script=[normal(), status(400), normal()]) as endpoint:
        model = OpenAIChatModel("judge", endpoint.base_url, max_retries=0)
        with serving(
            Subject("openai:judge", judge=EndpointJudge(model)), "pointwise", mode="greedy"
        ) as running:
            found = running.results("/v1/score", [{"query": str(i), "response": "r"} for i in range(3)])
            assert sorted(result["problem"][:6] for result in found) == ["", "", "failed"]
            assert [result["score"] for result in found if not result["problem"]] == [3.0, 3.0]
            refused = running.post("/v1/chat/completions", {"messages": THREE_TURNS})
            assert refused.status_code == 400
            assert "no generative judge in this process" in refused.json()["error"]["message"]
        model.close()
    with Endpoint(api_key="another") as endpoint:
        model = OpenAIChatModel("judge", endpoint.base_url, api_key="secret", max_retries=0)
        app = create_app(Subject("openai:judge", judge=EndpointJudge(model)), PointwiseTask())
        with pytest.raises(ConfigError, match="does not answer") as caught:
            app.state.service.try_out()
        assert "secret" not in str(caught.value)
        model.close()
