"""`scripts/gpu_check.py`: its arithmetic, its settings and its sentences. The run itself needs a GPU."""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rm_gallery.core.train import load_config
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts/gpu_check.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def step(number: int, seconds: float, **figures: float | None) -> dict[str, Any]:
    return {"step": number, "split": "train", "timing_s/step": seconds, **figures}


# -- settings


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 6, 8, 12, 16, 64])
def test_every_gpu_gets_the_same_number_of_samples(script: ModuleType, gpus: int) -> None:
    settings = script.choose_settings("cuda", gpus, 20, "m", Path("data"))
    config = load_config(script.RECIPES / "grpo.yaml", [*settings, "engine=verl"])
    samples = config.mini_batch_size * config.rollout.n
    assert samples % gpus == 0
    assert samples >= 128
    assert (
        config.train.batch_size == 2 * config.mini_batch_size
    )  # so that the second update is off the samples' policy
    assert config.verl == {"trainer.device": "cuda", "trainer.n_gpus_per_node": gpus}
    assert config.train.max_steps == 20


def test_a_cpu_gets_small_batches_and_judges_no_held_out_rows(script: ModuleType) -> None:
    settings = script.choose_settings("cpu", 0, 3, "m", Path("data"))
    config = load_config(script.RECIPES / "grpo.yaml", [*settings, "engine=verl"])
    assert (config.train.batch_size, config.mini_batch_size, config.rollout.n) == (4, 2, 4)
    assert config.data.val is None
    assert config.verl == {"trainer.device": "cpu", "trainer.n_gpus_per_node": 1}


def test_the_sample_fills_the_largest_batch(script: ModuleType) -> None:
    with (script.SAMPLE / "train.jsonl").open() as lines:
        rows = sum(1 for _ in lines)
    settings = script.choose_settings("cuda", 64, 20, "m", Path("data"))
    assert rows >= load_config(script.RECIPES / "grpo.yaml", settings).train.batch_size


# -- figures


def test_speed_is_the_median_of_the_steps_after_the_warm_up(script: ModuleType) -> None:
    seconds = [60.0, 9.0, 2.0, 4.0, 3.0, 100.0]  # the last four: 2, 3, 4, 100
    records = [step(i, s, tokens_per_second=1000.0 / s) for i, s in enumerate(seconds, start=1)]
    found = script.summarise(records)
    assert (found["steps"], found["steps_measured"]) == (6, 4)
    assert found["seconds_first_step"] == 60.0
    assert found["seconds_per_step"] == 3.5
    assert found["tokens_per_second"] == 291.7  # between 1000 / 4 and 1000 / 3


def test_phases_are_measured_each_by_itself(script: ModuleType) -> None:
    generate, update = "timing_s/generate", "timing_s/update"
    records = [
        step(1, 9.0, **{generate: 5.0, update: 4.0}),
        step(2, 9.0, **{generate: 5.0, update: 4.0}),
        step(3, 3.0, **{generate: 1.0, update: 0.5}),
        step(4, 3.0, **{generate: 2.0, update: 0.25}),
    ]
    phases = script.summarise(records)["seconds_by_phase"]
    assert phases == {"generate": 1.5, "log_probs": None, "reward": None, "update": 0.375}


def test_a_run_no_longer_than_the_warm_up_is_measured_whole(script: ModuleType) -> None:
    found = script.summarise([step(1, 8.0), step(2, 4.0)])
    assert (found["steps_measured"], found["seconds_per_step"]) == (2, 6.0)


def test_rewards_are_of_the_first_and_the_last_step_in_any_order_of_lines(script: ModuleType) -> None:
    records = [
        {"step": 3, "split": "val", "reward/mean": 0.5},
        step(3, 1.0, **{"reward/mean": 0.75}),
        step(1, 1.0, **{"reward/mean": 0.25}),
        {"step": 0, "split": "val", "reward/mean": 0.125},
        step(2, 1.0, **{"reward/mean": 0.0}),
    ]
    found = script.summarise(records)
    assert (found["reward_first"], found["reward_last"]) == (0.25, 0.75)
    assert (found["held_out_reward_first"], found["held_out_reward_last"]) == (0.125, 0.5)


def test_memory_is_the_largest_of_all_steps(script: ModuleType) -> None:
    records = [step(i, 1.0, **{"memory/peak_gib": gib}) for i, gib in enumerate([7.5, 3.0, None, 4.0])]
    assert script.summarise(records)["trainer_peak_gib"] == 7.5


def test_what_no_line_holds_is_not_made_up(script: ModuleType) -> None:
    found = script.summarise([step(1, 1.0, **{"reward/mean": None})])
    absent = (
        "tokens_per_second",
        "trainer_peak_gib",
        "rollout_probs_diff_mean",
        "reward_first",
        "reward_last",
    )
    assert [found[name] for name in absent] == [None] * len(absent)
    assert found["held_out_reward_first"] is None
    result = {
        "machine": {"gpus": 0, "gpu": None, "cpus": 2},
        "versions": {},
        "gpu_peak_gib": None,
        "run": found,
    }
    assert "tokens a second             not known" in script.table(result)


def test_a_run_without_a_step_is_a_sentence(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="holds no training step"):
        script.summarise([{"step": 0, "split": "val", "reward/mean": 0.1}])


def test_the_result_is_json(script: ModuleType) -> None:
    assert json.loads(json.dumps(script.summarise([step(1, 1.0)])))["steps"] == 1


def test_the_table_names_machine_versions_and_figures(script: ModuleType) -> None:
    result = {
        "machine": {"gpus": 2, "gpu": "NVIDIA H200", "cpus": 16},
        "versions": {"verl": "0.9.1", "torch": "2.11.0"},
        "gpu_peak_gib": 70.5,
        "run": script.summarise([step(1, 2.0, **{"reward/mean": 0.5})]),
    }
    lines = dict(
        line.split("  ", 1) for line in script.table(result).splitlines() if not line.startswith(" ")
    )
    shown = {name.strip(): value.strip() for name, value in lines.items()}
    assert shown["machine"] == "2 x NVIDIA H200"
    assert shown["versions"] == "verl 0.9.1, torch 2.11.0"
    assert shown["seconds a step"] == "2.0"
    assert shown["GPU memory, GiB, at most"] == "70.5"
    assert shown["reward, first to last step"] == "0.5 to 0.5"
    assert shown["held-out reward"] == "not known to not known"


def test_the_output_of_nvidia_smi(script: ModuleType) -> None:
    assert doctest.testmod(script).failed == 0
    # 81559 MiB = 79.65 GiB, 2048 MiB = 2 GiB
    text = "NVIDIA A100-SXM4-80GB, 81920, 0\nNVIDIA H100, 81559, 2048\n"
    assert script.parse_gpus(text) == [("NVIDIA A100-SXM4-80GB", 80.0, 0.0), ("NVIDIA H100", 79.6, 2.0)]
    assert script.parse_gpus("") == []


# -- the machine


def start(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out.json"), *arguments]
    environment = {**os.environ, "PATH": str(tmp_path), **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_it_refuses_a_machine_without_gpu_in_one_sentence(tmp_path: Path) -> None:
    done = start(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: nvidia-smi finds no GPU here: run this where there is one, or give --device cpu\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_hidden_does_not_count(tmp_path: Path) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 0'\n")
    fake.chmod(0o755)
    done = start(tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "finds no GPU" in done.stderr


def test_no_steps_is_a_sentence(tmp_path: Path) -> None:
    assert start(tmp_path, "--steps", "0").stderr == "error: --steps is 0, expected 1 or more\n"
