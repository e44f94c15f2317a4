"""Both recipes on real HelpSteer2 rows with the real model: memory, and a kill in the middle."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
STEPS = 2
MEMORY_GIB = 10


def rmg(*words: str) -> list[str]:
    return [sys.executable, "-m", "rm_gallery", *words]


def laptop_settings(recipe: Path) -> list[str]:
    """The `--set`s that the recipe's own head gives for a laptop, of its last step."""
    *_, line = (
        line for line in recipe.read_text(encoding="utf-8").splitlines() if "--set model.path" in line
    )
    words = shlex.split(line.removeprefix("#"))
    return [word for before, word in pairwise(words) if before == "--set"]


def comparable(path: Path) -> list[dict]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    timed = re.compile(r"timing_s/|memory/|tokens_per_second|seconds")
    return [{k: v for k, v in record.items() if not timed.match(k)} for record in records]


def training(kind: str, data: Path, model: Path, folder: Path) -> list[str]:
    """The recipe's command on rows that it converts to `folder`, cut to two steps with a checkpoint each."""
    recipe = ROOT / "examples" / "train" / kind
    convert = rmg("data", "convert", "--config", str(recipe / "data_config.yaml"))
    convert += ["--set", f"configs.path={data}", "--set", f"export.output_dir={folder / 'data'}"]
    subprocess.run(convert, check=True, capture_output=True)
    settings = laptop_settings(recipe / "train.yaml")
    settings += [
        f"model.path={model}",
        f"data.train={folder}/data/helpsteer2_{kind}_train.parquet",
        "data.val=null",
        f"train.max_steps={STEPS}",
        "train.save_every=1",
        "train.keep_checkpoints=1",
    ]
    return rmg("train", str(recipe / "train.yaml"), *(word for s in settings for word in ("--set", s)))


def train_whole(command: list[str], folder: Path) -> Path:
    """The folder of an unbroken run, whose memory is checked."""
    run = folder / "whole"
    subprocess.run([*command, "--out", str(run)], check=True, capture_output=True, cwd=folder)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    assert peak < MEMORY_GIB, f"{peak:.1f} GiB"
    return run


def test_the_pairwise_recipe_trains_within_memory(shared_data, smollm2, tmp_path):
    data = shared_data / "helpsteer2" / "preference" / "preference.jsonl.gz"
    run = train_whole(training("pairwise", data, smollm2, tmp_path), tmp_path)
    assert len(comparable(run / "metrics.jsonl")) == STEPS


def test_the_pointwise_recipe_trains_within_memory_and_resumes(shared_data, smollm2, tmp_path):
    command = training("pointwise", shared_data / "helpsteer2", smollm2, tmp_path)
    whole = train_whole(command, tmp_path)
    broken = tmp_path / "broken"
    process = subprocess.Popen([*command, "--out", str(broken)], stderr=subprocess.DEVNULL, cwd=tmp_path)
    while process.poll() is None and not (broken / "actor_latest").exists():
        time.sleep(0.2)
    time.sleep(2)  # into the second step
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(comparable(broken / "metrics.jsonl")) < STEPS
    subprocess.run(
        [*command, "--out", str(broken), "--resume"], check=True, capture_output=True, cwd=tmp_path
    )
    assert comparable(broken / "metrics.jsonl") == comparable(whole / "metrics.jsonl")
