"""The example of a reward of one's own: its figures, and that training and evaluation pay it."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.reward import time_weighted
from examples.reward.time_weighted import compute_custom_reward, get_time_weight
from rm_gallery.core.data.samples import Message, Sample
from rm_gallery.core.evaluate import score_outputs
from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import get_task
from rm_gallery.core.tasks.saved import load_saved_task
from tests.conftest import ROOT

NAMES = {
    "by its file": f"{ROOT}/examples/reward/time_weighted.py:compute_custom_reward",
    "dotted": "examples.reward.time_weighted:compute_custom_reward",
}
scores, years = st.integers(0, 4), st.integers(1990, 2025)


def row(i: int) -> dict:
    source = ("support_2025", "support_2021", "ours")[i % 3]
    turns = (Message("user", f"question {i}"),)
    return Sample(turns, f"answer {i}", {"helpfulness": i % 5}, f"row-{i}", source).to_row()


def test_the_examples_in_its_docstrings() -> None:
    assert doctest.testmod(time_weighted).failed == 0


@given(scores, scores, years, years)
def test_it_falls_with_the_error_and_with_the_age_of_the_labels(
    predicted: int, true: int, year: int, other: int
) -> None:
    old, new = (f"support_{each}" for each in sorted((year, other)))
    assert (
        0 <= compute_custom_reward(predicted, true, old) <= compute_custom_reward(predicted, true, new) <= 1
    )
    right = compute_custom_reward(true, true, new)
    assert right == get_time_weight(new)
    assert (compute_custom_reward(predicted, true, new) == right) == (predicted == true)
    # twice the error costs four times as much
    if abs(predicted - true) == 2:
        one, two = (right - compute_custom_reward(true, true + off, new) for off in (1, 2))
        assert two == pytest.approx(4 * one)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_training_and_evaluation_pay_it_by_the_source_of_the_row(name: str) -> None:
    task = get_task("pointwise", RewardConfig(name=name, invalid_reward=-1))
    paid = {
        source: task.compute_score(source, "<score>3</score>", 4)["score"]
        for source in ("support_2025", "support_2021", "ours")
    }
    assert paid == {"support_2025": 15 / 16, "support_2021": 15 / 64, "ours": 15 / 16}
    made = score_outputs(task, [row(i) for i in range(6)], ["<score>4</score>"] * 5 + ["4"])
    by_hand = [compute_custom_reward(4, i % 5, row(i)["data_source"]) for i in range(5)]
    assert made.reward == (*by_hand, -1.0)


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_trained_with_it_and_its_judge_keeps_it(tiny_model: Path, tmp_path: Path) -> None:
    from rm_gallery.core.train.config import check_config
    from rm_gallery.core.train.local import train_local

    rows = [row(i) for i in range(6)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    config = {
        "model": {"path": str(tiny_model), "dtype": "float32"},
        "data": {"train": str(tmp_path / "train.jsonl"), "val": str(tmp_path / "train.jsonl")},
        "train": {"batch_size": 2, "mini_batch_size": 2, "max_steps": 1, "eval_every": None},
        "rollout": {"n": 2, "max_response_length": 4},
        "loss": {"advantage": "group_mean"},
        "reward": {"name": NAMES["by its file"], "invalid_reward": -0.25},
    }
    run = train_local(check_config(config), path=tmp_path / "run").run
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    # nothing of four tokens is a verdict
    assert {line["reward/mean"] for line in lines} == {-0.25}
    saved = load_saved_task(run.latest)
    assert saved is not None
    assert saved.task.reward(4, 4, "support_2023") == 0.5
