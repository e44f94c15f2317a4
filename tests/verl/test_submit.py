"""Submitting to a cluster: what goes wrong before there is a job."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.verl.conftest import rmg

pytestmark = [pytest.mark.verl, pytest.mark.usefixtures("verl_cpu")]


def test_an_address_where_nothing_answers_is_one_sentence(tiny_verl_model: Path, helpsteer2: Path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = rmg("train", str(ROOT / "examples/train/pointwise/train.yaml"), "--engine", "verl")
    command += ["--set", f"model.path={tiny_verl_model}"]
    command += [
        "--set",
        f"data.train={helpsteer2}/helpsteer2_pointwise_train.parquet",
        "--set",
        "data.val=null",
    ]
    command += ["--set", "data.max_prompt_length=1500", "--set", "rollout.max_response_length=16"]
    done = subprocess.run(
        [*command, "--address", f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no Ray cluster answers at" in done.stderr
    assert "Traceback" not in done.stderr
