"""A judge in vLLM answers as one in transformers does: real vLLM, on the CPU."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time

import pytest

from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.chat import ChatJudge
from rm_gallery.core.judge.read import DASHES
from rm_gallery.core.judge.subject import Subject
from rm_gallery.core.models import ChatError, OpenAIChatModel
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from tests.judge.tasks import FirstCharacter
from tests.service import serving
from tests.tiny import build_model

pytestmark = pytest.mark.verl

RUBRIC = "A rubric that all of the questions begin with, longer than a block of the cache. " * 3
ASKED = [
    [{"role": "user", "content": text}] for text in ("", "a", RUBRIC + "x", RUBRIC + "yz", "bcd" * 30, "a")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vllm: make verl-cpu sets up an environment that has it")
    from rm_gallery.core.train.verl.cpu import ENVIRONMENT

    folder = build_model(tmp_path_factory.mktemp("models") / "tiny", heads=2, head_size=32)
    options = {"max_model_len": 512, "enforce_eager": True}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            if name.startswith("VLLM_"):
                patch.setenv(name, value)
        model = OpenAIChatModel(
            str(folder), is_local=True, engine="vllm", engine_options=options, max_tokens=8
        )
        yield model
        model.close()


@pytest.fixture(scope="module")
def judges(model):
    return model.judge, LocalJudge.load(model.model)


def test_greedy_texts_are_the_same(judges):
    engine, local = (
        judge.answer(FirstCharacter(), ASKED, mode="greedy", max_new_tokens=8) for judge in judges
    )
    assert engine == local


@pytest.mark.parametrize("task", [PointwiseTask(), PairwiseTask()], ids=lambda task: task.name)
def test_the_distributions_are_the_same(judges, task):
    batches = []
    engine, local = (
        judge.answer(task, ASKED, mode="expected", max_new_tokens=8, done=batches.append) for judge in judges
    )
    for ours, reference in zip(engine, local, strict=True):
        assert ours.probabilities == pytest.approx(reference.probabilities, abs=1e-4)
        assert ours.mass == pytest.approx(reference.mass, rel=1e-3)
    assert len({answer.probabilities for answer in engine}) == 5


def test_the_prompt_is_encoded_once_for_all_verdicts(judges):
    engine, _ = judges
    [prompt] = engine.encode([[{"role": "user", "content": "not asked before " * 20}]])
    tree = engine.verdict_tree(PointwiseTask())
    outputs, run = [], engine._run
    engine._run = lambda *asked: outputs.extend(run(*asked)) or outputs
    try:
        list(engine._weigh([prompt], tree))
    finally:
        engine._run = run
    computed = sum(len(output.prompt_token_ids) - output.num_cached_tokens for output in outputs)
    assert len(outputs) == 1 + len(tree.tokens)
    assert computed < 0.5 * len(outputs) * len(prompt), "up to a block of each request is computed anew"


def test_a_vote_depends_on_the_seed_and_not_on_the_batch(judges):
    engine, _ = judges
    options = {"mode": "vote", "max_new_tokens": 6, "samples": 4}
    first = engine.answer(FirstCharacter(), ASKED, seed=1, **options)
    assert engine.answer(FirstCharacter(), ASKED[::-1], seed=1, **options)[::-1] == first
    assert engine.answer(FirstCharacter(), ASKED, seed=2, **options) != first
    assert len(set(first[2].text.split(DASHES))) > 1


def test_what_is_too_long_is_counted(judges):
    engine, _ = judges
    [answer] = engine.answer(
        PointwiseTask(), [[{"role": "user", "content": "w" * 600}]], mode="greedy", max_new_tokens=4
    )
    assert answer.problem.startswith("overlong: the prompt has 6")


# -- a chat model in vLLM, and the service


def together(*coroutines):
    async def gathered():
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return asyncio.run(gathered())


@pytest.fixture
def steps(model, monkeypatch):
    """The engine's steps, each as the number of requests that it ends."""
    engine, ended = model.judge.engine.llm_engine, []
    step = engine.step

    def counted():
        outputs = step()
        ended.append(len(outputs))
        return outputs

    monkeypatch.setattr(engine, "step", counted)
    return ended


def test_a_chat_model_writes_the_same_with_either_engine(model):
    other = OpenAIChatModel(model.model, is_local=True, max_tokens=8)
    found, reference = (together(*map(each.achat, ASKED)) for each in (model, other))
    other.close()
    assert [response.text for response in found] == [response.text for response in reference]
    assert model.fingerprint != other.fingerprint


def test_concurrent_calls_share_the_engines_steps(model, steps):
    """One by one, n answers of eight tokens take 8 n steps."""
    together(*(model.achat([{"role": "user", "content": f"{i}, and on it goes"}]) for i in range(12)))
    assert sum(steps) == 12
    assert len(steps) < 12 * 8 / 2


def test_a_question_does_not_wait_for_the_answers_that_are_being_written(model):
    """In batches that begin and end together, the short answers would come behind the long one."""
    ended, begun = [], threading.Event()

    def long(judge, conversations):
        begun.set()
        return judge.generate(conversations, max_new_tokens=400)

    async def note(name, coroutine):
        text = await coroutine
        ended.append(name)
        return text

    async def run():
        first = asyncio.create_task(note("long", model.abatched(ASKED[1], long)))
        await asyncio.to_thread(begun.wait, 10)
        await asyncio.sleep(0.05)
        for i in range(3):
            await note("short", model.achat([{"role": "user", "content": f"short {i}"}], max_tokens=2))
        return await first

    text = asyncio.run(run())
    assert ended == ["short", "short", "short", "long"]
    assert text == LocalJudge.load(model.model).generate([ASKED[1]], max_new_tokens=400)[0]


def test_one_that_is_too_long_fails_alone(model):
    from vllm import SamplingParams

    def unchecked(judge, conversations):
        """What no check has kept from vLLM."""
        [prompt] = judge.encode(conversations)
        return judge._run([prompt], [SamplingParams(max_tokens=8)])

    overlong = [{"role": "user", "content": "w" * 600}]
    before, late, refused, after = together(
        model.achat(ASKED[1]),
        model.abatched(overlong, unchecked),
        model.achat(overlong),
        model.achat(ASKED[2]),
    )
    assert (type(refused), refused.kind) == (ChatError, "overlong")
    assert (type(late), late.kind) == (ChatError, "local")
    assert late.__cause__ is not None
    assert [before.text, after.text] == LocalJudge.load(model.model).generate(ASKED[1:3], max_new_tokens=8)


def test_a_grader_of_many_items_gets_the_distributions(model):
    judge = ChatJudge(model, PointwiseTask())
    assert judge.mode == "expected"
    reference = LocalJudge.load(model.model).answer(PointwiseTask(), ASKED, mode="expected", max_new_tokens=8)
    for found, expected in zip(together(*map(judge.aanswer, ASKED)), reference, strict=True):
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


def test_no_thread_holds_an_engine_that_nobody_asks(model):
    model.chat(ASKED[1])
    deadline = time.monotonic() + 10
    while any(thread.name == "rm-gallery-vllm" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert model.chat(ASKED[1]).text


def test_the_service_scores_and_writes_as_on_transformers(judges, steps):
    items = [{"query": f"question {i}", "response": "an answer"} for i in range(12)]
    body = {"messages": ASKED[2], "max_tokens": 6}
    found = []
    for judge in judges:
        with serving(Subject("tiny", judge=judge), PointwiseTask()) as service:
            results = service.results("/v1/score", items)
            reply = service.post("/v1/chat/completions", body).json()
        found.append((results, reply["choices"], reply["usage"]))
    each = 1 + len(judges[0].verdict_tree(PointwiseTask()).tokens)
    assert sum(steps) == each * len(items) + 1
    assert max(steps) > each, "no two questions shared a step"
    assert found[0][1:] == found[1][1:]
    for ours, reference in zip(found[0][0], found[1][0], strict=True):
        assert ours["verdict"] == reference["verdict"]
        assert ours["probabilities"] == pytest.approx(reference["probabilities"], abs=1e-4)


def test_after_an_error_that_the_engine_survives_the_next_questions_are_answered(judges, monkeypatch):
    judge, failed = judges[0], []
    engine = judge._continuous._engine
    step = engine.step

    def fails_once():
        if not failed:
            failed.append(True)
            raise RuntimeError("once")
        return step()

    monkeypatch.setattr(engine, "step", fails_once)
    with pytest.raises(RuntimeError, match="once"):
        judge.generate(ASKED[:2], max_new_tokens=8)
    assert len(judge.generate(ASKED[:2], max_new_tokens=8)) == 2
