"""A run on a Ray cluster that is up already: submitted as a job, its log streamed, stopped with Ctrl-C."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import rm_gallery
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.verl.process import RunFailed, Stopped

_CODE = ("data.custom_cls.path", "reward.custom_reward_function.path")
"""verl's keys that name a Python file: what one wrote oneself, which the cluster does not have."""


def submit(
    config: TrainConfig, run: Path, address: str, *, resume: bool = False, say: Callable[[str], None]
) -> None:
    """Run `rmg train` as a job of the cluster whose dashboard is at `address`, and wait for its end.

    The job gets this package and the Python files that the configuration names; torch, verl and vLLM are the
    cluster's own. Data, model and `run` must be where every node sees them.

    Raises:
        ConfigError: nothing answers at `address`.
        RunFailed, Stopped: the job failed, or was stopped from here.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobStatus, JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
    except AuthenticationError:
        raise ConfigError(
            f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here, "
            "as on its nodes"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"no Ray cluster answers at {address} ({first}): start one with `ray start --head --port=6379 "
            "--dashboard-port=8265`, and name its dashboard, http://HEAD:8265"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        runtime_env = pack(config, Path(folder))
        words = ["python3", "-m", "rm_gallery", "train", "config.yaml", "--engine", "verl", "--out", str(run)]
        job = client.submit_job(
            entrypoint=shlex.join([*words, *(["--resume"] if resume else [])]), runtime_env=runtime_env
        )
    say(f"submitted as {job}; run folder {run}")
    try:
        asyncio.run(_stream(client, job, say))
    except KeyboardInterrupt:
        client.stop_job(job)
        raise Stopped(f"{job} is stopped; the same command with --resume goes on") from None
    status = client.get_job_status(job)
    if status != JobStatus.SUCCEEDED:
        message = client.get_job_info(job).message or "no message"
        raise RunFailed(f"{job} ended as {status}: {message}. Its log: {run}/logs/training.log")


async def _stream(client: Any, job: str, say: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        for line in lines.splitlines():
            say(line)


def packed(config: TrainConfig) -> dict[str, Any]:
    """The configuration as the job writes it into the run's folder."""
    with tempfile.TemporaryDirectory() as folder:
        return _values(config, Path(folder))


def pack(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Lay out the job's working folder, and return its Ray runtime environment. Holds no key and no password."""
    (folder / "config.yaml").write_text(
        yaml.safe_dump(_values(config, folder), sort_keys=False), encoding="utf-8"
    )
    return {
        "working_dir": str(folder),
        "py_modules": [str(Path(rm_gallery.__file__).parent)],
        # the rest is set by `rmg train` inside the job; Ray refuses a variable that is named twice
        "env_vars": {"PYTHONUNBUFFERED": "1"},
    }


def _values(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """The configuration with paths that every node sees, and the files of code that it names copied into `folder`."""
    values = config.model_dump(mode="json")
    for section, key in (("data", "train"), ("data", "val"), ("model", "path")):
        given = values[section][key]
        # a hub id is no path, and stays
        if given is not None and (section == "data" or Path(given).expanduser().is_dir()):
            values[section][key] = str(Path(given).expanduser().resolve())
    values["output_dir"] = str(config.output_dir.resolve())
    for key in _CODE:
        if key in values["verl"]:
            values["verl"][key] = _ship(str(values["verl"][key]), folder)
    for holder, key in ((values, "task"), (values["reward"], "name")):
        place, colon, name = holder[key].rpartition(":")
        if place.endswith(".py"):
            holder[key] = f"{_ship(place, folder)}{colon}{name}"
    return values


def _ship(file: str, folder: Path) -> str:
    """Copy a Python file with those beside it, which it may import; the path relative to the job's folder."""
    source = Path(file).expanduser().resolve()
    if not source.is_file():
        return file  # `pkg://…`, or what verl will say is missing
    target = folder / "code" / source.parent.name
    target.mkdir(parents=True, exist_ok=True)
    for beside in source.parent.glob("*.py"):
        shutil.copyfile(beside, target / beside.name)
    return str((target / source.name).relative_to(folder))
