"""`examples/cluster`: what they start, and that it fits the run that they submit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from rm_gallery.core.train import load_config
from tests.conftest import ROOT

BASH = shutil.which("bash")
CLUSTER = ROOT / "examples/cluster"


def options_of(words: list[str]) -> dict[str, Any]:
    """What `rmg train CONFIG …` sets, checked as a configuration of the pointwise recipe."""
    settings = [after for before, after in pairwise(words) if before == "--set"]
    config = load_config(ROOT / "examples/train/pointwise/train.yaml", ["engine=verl", *settings])
    gpus = config.verl["trainer.nnodes"] * config.verl["trainer.n_gpus_per_node"]
    # each GPU computes the same number of a mini-batch's samples
    assert config.mini_batch_size * config.rollout.n % gpus == 0
    return config.verl


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_the_slurm_script_starts_a_cluster_and_submits_to_it(tmp_path: Path) -> None:
    script = CLUSTER / "slurm.sbatch"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/activate").write_text(f"srun() {{ printf '%s\\0' \"$@\" >'{tmp_path}/words'; }}\n")
    # `exec` runs a program: here a function has to do
    copy = tmp_path / "slurm.sbatch"
    copy.write_text(script.read_text().replace("exec srun", "srun"))
    variables = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "8", "SLURM_CPUS_PER_TASK": "64"}

    def words(*arguments: str) -> list[str]:
        environment = {"PATH": os.environ["PATH"], "VENV": str(tmp_path), "HEAD_IP": "10.0.0.1", **variables}
        command = [str(BASH), str(copy), *arguments]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=30)
        return (tmp_path / "words").read_text().split("\0")[:-1]

    given = words("--set", "train.max_steps=3")
    start, command = given[: given.index("--")], given[given.index("--") + 1 :]
    assert start[1:] == ["ray", "symmetric-run", "--address", "10.0.0.1:6379", "--min-nodes", "8"]
    assert command[:3] == ["rmg", "train", "examples/train/pointwise/train.yaml"]
    assert command[-1] == "train.max_steps=3"
    options = dict(pairwise(command))
    assert (options["--engine"], options["--address"]) == ("verl", "http://127.0.0.1:8265")
    assert options["--out"] == f"{tmp_path}/checkpoints/7"
    assert options_of(command) == {"trainer.nnodes": 8, "trainer.n_gpus_per_node": 8}
    assert "--resume" not in command
    # requeued, it finds its run
    (tmp_path / "checkpoints/7").mkdir(parents=True)
    (tmp_path / "checkpoints/7/config.yaml").touch()
    assert "--resume" in words()


def test_the_slurm_script_asks_for_what_it_uses() -> None:
    asked = re.findall(r"^#SBATCH --([\w-]+)=(\S+)", (CLUSTER / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"nodes": "8", "ntasks-per-node": "1", "gpus-per-node": "8"}.items() <= dict(asked).items()


def test_the_manifest_has_the_gpus_that_the_run_is_told_of() -> None:
    job = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["rmg", "train"]
    assert "--address" not in words  # it is a Ray job already
    told = options_of(words)
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert sum(pod.get("replicas", 1) for pod in pods) == told["trainer.nnodes"]
    for pod in pods:
        spec = pod["template"]["spec"]
        [container] = spec["containers"]
        assert int(container["resources"]["limits"]["nvidia.com/gpu"]) == told["trainer.n_gpus_per_node"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in spec["volumes"]
        }
    shared = [word for word in words if word.startswith(("data.", "/"))]
    assert all("/shared/" in word for word in shared)
