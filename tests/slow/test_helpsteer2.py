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
    """The `--set`s that the recipe's own head gives for a laptop."""
    line = next(
        line for line in recipe.read_text(encoding="utf-8").splitlines() if "--set model.path" in line
    )
    words = shlex.split(line.removeprefix("#"))
    return [word for before, word in pairwise(words) if before == "--set"]


def comparable(path: Path) -> list[dict]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    timed = re.compile(r"timing_s/|memory/|tokens_per_second|seconds")
    return [{k: v for k, v in record.items() if not timed.match(k)} for record in records]


@pytest.mark.parametrize(
    ("kind", "source"), [("pointwise", ""), ("pairwise", "preference/preference.jsonl.gz")]
)
def test_the_recipe_trains_within_memory_and_resumes(kind, source, shared_data, smollm2, tmp_path):
    folder = ROOT / "examples" / "train" / kind
    data = shared_data / "helpsteer2" / source
    convert = rmg("data", "convert", "--config", str(folder / "data_config.yaml"))
    convert += ["--set", f"configs.path={data}", "--set", f"export.output_dir={tmp_path / 'data'}"]
    subprocess.run(convert, check=True, capture_output=True)
    settings = laptop_settings(folder / "train.yaml")
    settings += [
        f"model.path={smollm2}",
        f"data.train={tmp_path}/data/helpsteer2_{kind}_train.parquet",
        "data.val=null",
        f"train.max_steps={STEPS}",
        "train.save_every=1",
        "train.keep_checkpoints=1",
    ]
    command = rmg("train", str(folder / "train.yaml"), *(word for s in settings for word in ("--set", s)))
    subprocess.run(
        [*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True, cwd=tmp_path
    )

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
    assert comparable(broken / "metrics.jsonl") == comparable(tmp_path / "whole" / "metrics.jsonl")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    assert peak < MEMORY_GIB, f"{peak:.1f} GiB"
