"""Several processes through accelerate: one run folder, the same prompts, every held-out row judged once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from tests.train.test_local_grpo import write_rows

pytestmark = pytest.mark.slow


def test_two_processes_train_as_one_run(tiny_model, tmp_path):
    config = {
        "task": "pointwise",
        "model": {"path": str(tiny_model), "dtype": "float32"},
        "data": {
            "train": str(write_rows(tmp_path / "train.jsonl", 24)),
            "val": str(write_rows(tmp_path / "val.jsonl", 5)),
        },
        "train": {"batch_size": 4, "mini_batch_size": 4, "max_steps": 3, "eval_every": 2, "save_every": 2},
        "rollout": {"n": 4, "max_response_length": 8},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    run = tmp_path / "run"
    done = subprocess.run(
        [*command, "-m", "rm_gallery", "train", str(tmp_path / "train.yaml"), "--out", str(run)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seen = [(record["step"], record["split"]) for record in records]
    assert seen == [(0, "val"), (1, "train"), (2, "train"), (2, "val"), (3, "train"), (3, "val")]
    assert (run / "actor_latest" / "model.safetensors").is_file()
    assert done.stdout.count("Trained 3 steps") == 1
