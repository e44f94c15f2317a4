"""A judge in vLLM answers as one in transformers does: real vLLM, on the CPU."""

from __future__ import annotations

import importlib.util

import pytest

from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.read import DASHES
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from tests.judge.tasks import FirstCharacter
from tests.tiny import build_model

pytestmark = pytest.mark.verl

RUBRIC = "A rubric that all of the questions begin with, longer than a block of the cache. " * 3
ASKED = [
    [{"role": "user", "content": text}] for text in ("", "a", RUBRIC + "x", RUBRIC + "yz", "bcd" * 30, "a")
]


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vllm: make verl-cpu sets up an environment that has it")
    from rm_gallery.core.judge.vllm import VllmJudge
    from rm_gallery.core.train.verl.cpu import ENVIRONMENT

    folder = build_model(tmp_path_factory.mktemp("models") / "tiny", heads=2, head_size=32)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            if name.startswith("VLLM_"):
                patch.setenv(name, value)
        engine = VllmJudge.load(folder, dtype="float32", max_model_len=512, enforce_eager=True)
        yield engine, LocalJudge.load(folder)


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
