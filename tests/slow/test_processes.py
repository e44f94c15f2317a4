"""Several processes through accelerate: one run folder, the same prompts, every held-out row judged once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import train_local
from tests.train.exact_parts import settings_for
from tests.train.scalar_runs import comparable, write_pairs, write_ratings
from tests.train.scalar_runs import records as read_records
from tests.train.test_local_grpo import write_rows
from tests.train.test_reasoned import start, thinking

pytestmark = pytest.mark.slow


def launch(config: dict, folder: Path) -> subprocess.CompletedProcess[str]:
    """Train in two processes into `folder/run`."""
    (folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
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
    done = subprocess.run(
        [
            *command,
            "-m",
            "rm_gallery",
            "train",
            str(folder / "train.yaml"),
            "--out",
            str(folder / "run"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


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
    done = launch(config, tmp_path)
    run = tmp_path / "run"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seen = [(record["step"], record["split"]) for record in records]
    assert seen == [(0, "val"), (1, "train"), (2, "train"), (2, "val"), (3, "train"), (3, "val")]
    assert (run / "actor_latest" / "model.safetensors").is_file()
    assert done.stdout.count("Trained 3 steps") == 1


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", ["bradley_terry", "regression"])
def test_two_processes_train_a_scalar_model_as_one_does(tiny_model, tmp_path, method):
    """The same figures and weights: gradients, missing labels and a learned parameter are averaged over both."""
    from safetensors.torch import load_file
    from torch.testing import assert_close

    if method == "bradley_terry":
        files = [write_pairs(tmp_path / f"{n}.jsonl", n, ties=True) for n in (24, 9)]
    else:
        files = [write_ratings(tmp_path / f"{n}.jsonl", n) for n in (24, 9)]
    config = {
        "method": method,
        "model": {"path": str(tiny_model), "dtype": "float32"},
        "data": {"train": str(files[0]), "val": str(files[1])},
        "train": {
            **{"batch_size": 8, "mini_batch_size": 4, "micro_batch_size": 1, "max_steps": 4},
            **{"learning_rate": 1e-3, "eval_every": 2, "save_every": 2},
        },
        "bradley_terry": {"ties": "davidson", "margin": "strength", "center_coef": 0.1},
        "regression": {"attributes": {"helpfulness": 1.0, "verbosity": 0.5}},
    }
    done = launch(config, tmp_path)
    assert done.stdout.count("Trained 4 steps") == 1
    alone = train_local(check_config(config), path=tmp_path / "alone").run.path
    two, one = ([comparable(r) for r in read_records(run)] for run in (tmp_path / "run", alone))
    assert len(two) == len(one)
    for ours, theirs in zip(two, one, strict=True):
        assert ours.pop("split") == theirs.pop("split")
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    weights = [load_file(run / "actor_latest" / "model.safetensors") for run in (tmp_path / "run", alone)]
    for name, weight in weights[0].items():
        assert_close(weight, weights[1][name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("reasons", [False, True])
def test_two_processes_train_the_exact_objective_as_one_does(tiny_model, tmp_path, reasons):
    """By the log score, which an untrained model learns by: its gradients are not zero."""
    train = {"max_steps": 3, "micro_batch_size": 2, "eval_every": 2, "learning_rate": 1e-3}
    config = settings_for(tiny_model, tmp_path, train=train, reward={"name": "log_score"})
    if reasons:
        (tmp_path / "start").mkdir()
        config = thinking(start(tiny_model, tmp_path / "start"), tmp_path, train=train)
    done = launch(config, tmp_path)
    assert done.stdout.count("Trained 3 steps") == 1
    alone = train_local(check_config(config), path=tmp_path / "alone").run.path
    two, one = ([comparable(r) for r in read_records(run)] for run in (tmp_path / "run", alone))
    assert one[1]["grad_norm"] > 0.01
    assert len(two) == len(one)
    for ours, theirs in zip(two, one, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():  # undefined figures are null
            known = isinstance(value, (int, float))
            assert ours[name] == (pytest.approx(value, rel=1e-3, abs=1e-4) if known else value), name
