"""`RunFolder`: what a training run leaves behind, the same for every engine.

checkpoints/1120T0912/
  config.yaml             the configuration as it was resolved
  metrics.jsonl           one line a step and split
  logs/training.log
  checkpoint-20/ …
  actor_latest -> the newest complete checkpoint
  best -> the best one by held-out reward
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.tasks.saved import CARD
from rm_gallery.core.train.config import TrainConfig, check_config
from rm_gallery.core.train.log import read_log
from rm_gallery.core.yaml_config import flat

_CHECKPOINTS = ("checkpoint-*", "global_step_*")
"""Of the local engine and of verl."""


class RunFolder:
    """The folder of one run. Use `create` or `find`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.latest = path / "actor_latest"
        self.best = path / "best"

    @classmethod
    def create(cls, config: TrainConfig, path: Path | None = None) -> RunFolder:
        """Make a new folder: `path`, or one named by the time under `config.output_dir`."""
        path = path or cls.new_path(config)
        cls.check_free(path)
        (path / "logs").mkdir(parents=True, exist_ok=True)
        if is_main_process():
            part = path / "config.yaml.part"
            part.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
            part.replace(path / "config.yaml")
        return cls(path)

    @staticmethod
    def new_path(config: TrainConfig) -> Path:
        """A name that is free, by the time, under `config.output_dir`."""
        stamp = datetime.now().strftime("%m%dT%H%M")
        path, number = config.output_dir / stamp, 1
        while path.exists():
            number += 1
            path = config.output_dir / f"{stamp}-{number}"
        return path

    @staticmethod
    def check_free(path: Path | None) -> None:
        """Refuse a folder that a new run would mix with. Raises `ConfigError`."""
        if path is not None and path.is_file():
            raise ConfigError(f"{path} is a file: name a folder for the run")
        if path is not None and any(file for kind in _CHECKPOINTS for file in path.glob(kind)):
            raise ConfigError(f"{path} holds a run already: go on with --resume, or name another folder")

    @classmethod
    def find(
        cls, config: TrainConfig, path: Path | None = None, *, written: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """The run to go on with: `path`, or the newest under `config.output_dir` with this configuration.

        Args:
            written: the configuration as it stands in the run's folder, where that is not `config` as it is.

        Raises:
            ConfigError: there is none, or it was started with another configuration; names the keys.
        """
        values = config.model_dump(mode="json") if written is None else written
        if path is None:
            known = sorted(config.output_dir.glob("*/config.yaml"), key=lambda p: (p.stat().st_mtime, str(p)))
            if not known:
                raise ConfigError(f"--resume: no run under {config.output_dir}; start one without --resume")
            same = [file.parent for file in known if not _changed(file, values)]
            path = same[-1] if same else known[-1].parent
        if not (path / "config.yaml").is_file():
            raise ConfigError(
                f"--resume: {path} holds no run (there is no config.yaml in it); start without --resume"
            )
        if changed := _changed(path / "config.yaml", values):
            raise ConfigError(
                f"--resume: {path} was started with another {', '.join(changed)}; `rmg train {path}/config.yaml "
                f"--out {path} --resume` goes on with it, or start a new run"
            )
        return cls(path)

    def newest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint. The card is written last, so one without it was cut off."""
        complete = [folder for folder in self.path.glob("checkpoint-*") if (folder / CARD).is_file()]
        return max(complete, key=lambda folder: int(folder.name.split("-")[1]), default=None)

    def link(self, name: Path, target: Path) -> None:
        """Point `name` at `target`, replacing it in one move."""
        part = name.with_name(name.name + ".part")
        part.unlink(missing_ok=True)
        part.symlink_to(os.path.relpath(target, name.parent))
        part.replace(name)

    def append(self, record: dict[str, Any]) -> None:
        """Add one line to `metrics.jsonl`."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the lines of later steps: a resumed run will write them again."""
        if not is_main_process():
            return
        kept = (
            [record for record in read_log(self.metrics) if record["step"] <= step]
            if self.metrics.is_file()
            else []
        )
        part = self.metrics.with_suffix(".part")
        part.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        part.replace(self.metrics)

    def open_log(self) -> logging.Handler:
        """A handler that writes `logs/training.log`; the caller adds and removes it. Only the main process logs."""
        if not is_main_process():
            return logging.NullHandler()
        (self.path / "logs").mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(self.path / "logs" / "training.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        return handler


def is_main_process() -> bool:
    """Whether this process is the one that writes: the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _changed(file: Path, values: Mapping[str, Any]) -> list[str]:
    """The keys in which a run's configuration and this one differ."""
    written = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    with contextlib.suppress(ConfigError):  # what did not exist then had the value that it has by default
        written = check_config(written).model_dump(mode="json")
    before = flat(written)
    now = flat(dict(values))
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
