"""A job submitted to a Ray cluster of two nodes: one worker on each, and a shard from each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.verl.conftest import LETTERS, rmg

pytestmark = [pytest.mark.verl, pytest.mark.slow, pytest.mark.usefixtures("verl_cpu")]
TOKEN = "of-32-characters-or-longer-for-this-test-alone"


def _free_ports(count: int) -> list[int]:
    with_ports = [socket.socket() for _ in range(count)]
    try:
        for each in with_ports:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in with_ports]
    finally:
        for each in with_ports:
            each.close()


def _environment(*, of_venv: bool) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    if of_venv:
        kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


@contextmanager
def two_nodes(logs: Path) -> Iterator[str]:
    """The address of the dashboard of a cluster of two nodes, as two `ray start` make it."""
    port, dashboard = _free_ports(2)
    # Unix sockets lie there, whose paths may not be longer than 107 bytes
    place = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    # one GPU a node, in name: each of verl's workers asks for one, so each node gets one worker
    common = ["start", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=8", "--num-gpus=1"]
    common += ["--object-store-memory=300000000"]
    head = [f"--port={port}", "--head", f"--dashboard-port={dashboard}", f"--temp-dir={place}"]
    processes = []
    try:
        for name, words in (("head", head), ("other", [f"--address=127.0.0.1:{port}"])):
            with (logs / f"{name}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [str(Path(sys.executable).parent / "ray"), *common, *words],
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=_environment(of_venv=True),
                        start_new_session=True,
                    )
                )
            if name == "head":
                _answers(f"http://127.0.0.1:{dashboard}/api/version")
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(place, ignore_errors=True)


def _answers(url: str) -> None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_one_step_of_lora_on_two_nodes_with_a_worker_on_each(
    helpsteer2: Path, tiny_verl_model: Path, tmp_path: Path
):
    """LoRA, so that the sharded adapters are merged into their base here as well."""
    import torch
    from transformers import AutoModelForCausalLM

    run, reward = tmp_path / "run", tmp_path / "code" / "letters.py"
    reward.parent.mkdir()
    reward.write_text(LETTERS)
    settings = {
        "model.path": tiny_verl_model,
        "model.dtype": "float32",
        "model.lora.rank": 4,
        "data.train": helpsteer2 / "helpsteer2_pointwise_train.parquet",
        "data.val": "null",
        "data.max_prompt_length": 1500,
        "data.limit": 60,
        "rollout.max_response_length": 16,
        "rollout.n": 4,
        "train.batch_size": 4,
        "train.mini_batch_size": 4,
        "train.max_steps": 1,
        "train.learning_rate": 1e-2,
        "train.save_every": 1,
        "verl.reward.custom_reward_function.path": reward,
        "verl.trainer.device": "cpu",
        "verl.trainer.nnodes": 2,
        "verl.trainer.n_gpus_per_node": 1,
    }
    command = rmg("train", str(ROOT / "examples/train/pointwise/train.yaml"), "--engine", "verl")
    command += [
        "--out",
        str(run),
        *(w for key, value in settings.items() for w in ("--set", f"{key}={value}")),
    ]
    with two_nodes(tmp_path) as address:
        done = subprocess.run(
            [*command, "--address", address],
            cwd=tmp_path,
            env=_environment(of_venv=False),
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
    log = run / "logs" / "training.log"
    shown = done.stdout[-6000:] + done.stderr[-6000:] + (log.read_text()[-6000:] if log.is_file() else "")
    assert done.returncode == 0, shown
    shards = sorted(path.name for path in (run / "actor_latest").glob("model_world_size_2_rank_*.pt"))
    assert shards == ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [1]
    merged = tmp_path / "merged"
    subprocess.run(rmg("merge", str(run), str(merged)), check=True, capture_output=True)
    before, after = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (tiny_verl_model, merged))
    assert before.keys() == after.keys(), "one whole model, no adapters"
    changed = {n for n in before if not torch.allclose(before[n], after[n].float(), atol=0.02)}
    assert changed
    assert all("_proj" in name for name in changed), "what has adapters has changed, and nothing else"
