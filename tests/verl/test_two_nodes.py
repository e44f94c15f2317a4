"""A job submitted to a Ray cluster of two nodes, both on this machine, with one worker on each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.verl.conftest import rmg

pytestmark = [pytest.mark.verl, pytest.mark.slow, pytest.mark.usefixtures("verl_cpu")]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The address of a cluster whose two nodes have a logical GPU each; stopped at the end."""
    gcs, port = free_port(), free_port()
    environment = {**os.environ, "RAY_memory_monitor_refresh_ms": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    each = ["--num-cpus=8", "--num-gpus=1", "--object-store-memory=300000000", "--block"]
    # a short path: the names of Unix sockets are limited to 107 bytes
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as scratch:
        head = ["--head", "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={port}"]
        nodes = []

        def start(*words: str) -> None:
            command = [RAY, "start", *words, *each]
            nodes.append(
                subprocess.Popen(
                    command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )

        try:
            start(*head, f"--temp-dir={scratch}", "--dashboard-host=127.0.0.1")
            address = f"http://127.0.0.1:{port}"
            answers(address + "/api/version", seconds=90)
            start(f"--address=127.0.0.1:{gcs}", "--node-ip-address=127.0.0.1")
            time.sleep(10)
            yield address
        finally:
            for node in reversed(nodes):
                node.terminate()
            for node in nodes:
                try:
                    node.wait(30)
                except subprocess.TimeoutExpired:
                    node.kill()


def answers(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def test_one_step_with_a_worker_on_each_node(dashboard, helpsteer2: Path, tiny_verl_model: Path, tmp_path):
    run = tmp_path / "run"
    settings = [
        f"model.path={tiny_verl_model}",
        f"data.train={helpsteer2}/helpsteer2_pointwise_train.parquet",
        "data.val=null",
        "data.max_prompt_length=1500",
        "data.limit=60",
        "rollout.max_response_length=16",
        "rollout.n=4",
        "train.batch_size=4",
        "train.mini_batch_size=4",
        "train.max_steps=1",
        "model.dtype=float32",
        "verl.trainer.device=cpu",
        "verl.trainer.nnodes=2",
    ]
    command = rmg("train", str(ROOT / "examples/train/pointwise/train.yaml"), "--engine", "verl")
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [*command, "--out", str(run), "--address", dashboard],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    log = run / "logs" / "training.log"
    text = log.read_text(errors="replace") if log.is_file() else ""
    assert done.returncode == 0, done.stdout + done.stderr + text[-4000:]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1]
    shards = sorted(file.name for file in (run / "actor_latest").glob("model_world_size_2_rank_*.pt"))
    assert shards == ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"], "a worker on each node"


def test_an_address_where_nothing_answers_is_one_sentence(tiny_verl_model: Path, helpsteer2: Path):
    command = rmg("train", str(ROOT / "examples/train/pointwise/train.yaml"), "--engine", "verl")
    command += ["--set", f"model.path={tiny_verl_model}"]
    command += [
        "--set",
        f"data.train={helpsteer2}/helpsteer2_pointwise_train.parquet",
        "--set",
        "data.val=null",
    ]
    done = subprocess.run(
        [*command, "--address", f"http://127.0.0.1:{free_port()}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no Ray cluster answers at" in done.stderr
    assert "Traceback" not in done.stderr
