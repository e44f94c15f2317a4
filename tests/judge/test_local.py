"""A local judge as a folder with a card, and one question to it. How it can be asked: test_modes.py."""

from __future__ import annotations

import json

import pytest

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.single import ask, describe
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from rm_gallery.core.tasks.saved import answer_length, load_saved_task, save_task

pytestmark = pytest.mark.usefixtures("one_thread")


def conversations(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_answers_do_not_depend_on_the_batch(tiny_model):
    """Padding and order of a batch are an implementation's business."""
    asked = conversations("a", "bcd" * 8, "", "x y z", "longer than that" * 3)
    one = LocalJudge.load(tiny_model, batch_size=1).generate(asked, max_new_tokens=6)
    many = LocalJudge.load(tiny_model, batch_size=3).generate(asked, max_new_tokens=6)
    assert one == many
    assert len(one) == 5


def test_greedy_ignores_the_models_own_sampling_settings(tiny_model, tmp_path):
    """A repetition penalty would push down the very tags that the prompt shows."""
    import shutil

    penalised = shutil.copytree(tiny_model, tmp_path / "penalised")
    settings = json.loads((penalised / "generation_config.json").read_text())
    (penalised / "generation_config.json").write_text(
        json.dumps({**settings, "repetition_penalty": 5.0, "do_sample": True, "temperature": 2.0})
    )
    asked = conversations("abcabcabc")
    plain, other = (LocalJudge.load(m).generate(asked, max_new_tokens=8) for m in (tiny_model, penalised))
    assert plain == other


def test_the_card_carries_task_and_length(tiny_model, tmp_path):
    save_task(tmp_path, "pairwise", PairwiseTask(think=True), max_response_length=12)
    saved = load_saved_task(tmp_path)
    assert saved is not None
    assert saved.task.name == "pairwise"
    assert saved.task.think
    assert answer_length(saved, saved.task) == 12
    assert answer_length(None, PointwiseTask()) == 32
    assert load_saved_task(tiny_model) is None


def test_a_judge_of_one_kind_is_not_asked_the_other(tiny_model, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "judge")
    save_task(folder, "pairwise", PairwiseTask(), max_response_length=8)
    with pytest.raises(ConfigError, match="--response-b"):
        ask(folder, "q", "a")
    judgment = ask(folder, "q", "a", "b")
    assert judgment.verdict is None
    assert "no verdict" in describe(judgment)
    assert set(judgment.probabilities) == {"A", "B", "tie"}
    assert (judgment.score, judgment.to_dict()["probabilities"]) == (None, judgment.probabilities)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"neither config.json nor adapter_config.json"):
        LocalJudge.load(tmp_path)
    with pytest.raises(ConfigError, match="rmg models fetch"):
        LocalJudge.load(tmp_path / "absent")
