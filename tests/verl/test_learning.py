"""Minutes of training with real verl on the CPU: a tiny model learns what pays, the real one runs on real rows."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.verl.conftest import LETTERS, rmg

pytestmark = [pytest.mark.verl, pytest.mark.minutes, pytest.mark.usefixtures("verl_cpu")]


def train(run: Path, settings: dict[str, object]) -> list[dict]:
    """The lines of `metrics.jsonl` that a run of the pointwise recipe leaves."""
    command = rmg("train", str(ROOT / "examples/train/pointwise/train.yaml"), "--engine", "verl")
    command += ["--out", str(run)]
    for key, value in {"verl.trainer.device": "cpu", "data.val": "null", **settings}.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_tiny_model_earns_nine_tenths_of_what_can_be_earned_after_thirty_steps(
    helpsteer2: Path, tiny_verl_model: Path, tmp_path: Path
):
    reward = tmp_path / "letters.py"
    reward.write_text(LETTERS)
    lines = train(
        tmp_path / "run",
        {
            "model.path": tiny_verl_model,
            "model.dtype": "float32",
            "data.train": helpsteer2 / "helpsteer2_pointwise_train.parquet",
            "data.max_prompt_length": 1000,
            "rollout.max_response_length": 16,
            "rollout.n": 8,
            "train.batch_size": 8,
            "train.mini_batch_size": 8,
            "train.micro_batch_size": 16,
            "train.max_steps": 30,
            "train.learning_rate": 1e-2,
            "train.save_every": "null",
            "loss.kl_coef": 0.0,
            "verl.reward.custom_reward_function.path": reward,
        },
    )
    rewards = [line["reward/mean"] for line in lines if line["split"] == "train"]
    print("reward by step:", [round(value, 3) for value in rewards])
    assert len(rewards) == 30
    assert rewards[0] < 0.5
    assert statistics.mean(rewards[-3:]) > 0.9


def test_the_real_model_takes_three_steps_on_real_rows(helpsteer2: Path, smollm2: Path, tmp_path: Path):
    lines = train(
        tmp_path / "run",
        {
            "model.path": smollm2,
            "data.train": helpsteer2 / "helpsteer2_pointwise_train.parquet",
            "data.max_prompt_length": 256,
            "rollout.max_response_length": 16,
            "rollout.n": 4,
            "train.batch_size": 8,
            "train.mini_batch_size": 8,
            "train.micro_batch_size": 4,
            "train.max_steps": 3,
            "train.save_every": "null",
        },
    )
    steps = [line for line in lines if line["split"] == "train"]
    shown = ("step", "reward/mean", "rollout_probs_diff/mean", "timing_s/step")
    print([{name: line.get(name) for name in shown} for line in steps])
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert all(line["rollout_probs_diff/mean"] < 0.02 for line in steps)
