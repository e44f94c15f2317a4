"""verl's figures under the names of the local engine: `verl/metrics-K.jsonl` → `metrics.jsonl`.

verl's `file` logger writes one line a step, and of each step's samples a dump. In the dump of training samples are
their texts and scores, but not what else the reward said of them; the task reads that from the texts again.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rm_gallery.core.tasks import Task
from rm_gallery.core.tasks.saved import CARD, load_saved_task
from rm_gallery.core.train.config import load_config
from rm_gallery.core.train.log import read_log
from rm_gallery.core.train.run_folder import RunFolder
from rm_gallery.core.train.verl.dumps import (
    HELD_OUT,
    Rows,
    belongs,
    ends_with_a_line,
    of_rollouts,
    of_validation,
    read_rows,
)

logger = logging.getLogger("rm_gallery.train")
Record = dict[str, Any]
Key = tuple[int, str]

NAMES = {
    "critic/score/mean": "reward/mean",  # before any KL penalty, synthetic padding samples left out
    "actor/loss": "loss",  # policy loss + kl_coef x KL, mean of the step's updates
    "actor/kl_loss": "kl_loss",  # nats a token, by the estimator; absent with loss.kl_coef 0
    "actor/entropy": "entropy",  # nats a token, of the policy that drew the samples
    "actor/grad_norm": "grad_norm",  # before clipping, mean of the step's updates
    "actor/lr": "lr",  # of the next step: verl reads it after the scheduler's step, as TRL does
    "actor/pg_clipfrac": "clip_ratio",  # share of tokens
    "response_length/mean": "response_length/mean",  # tokens
    "timing_s/gen": "timing_s/generate",  # seconds, with the rewards, which are computed meanwhile
    "timing_s/reward": "timing_s/reward",  # seconds; only of a reward model on the trainer's own GPUs
    "timing_s/update_actor": "timing_s/update",  # seconds
    "training/rollout_probs_diff_mean": "rollout_probs_diff/mean",  # |p by vLLM - p by the trainer|, a token
    "actor/perf/max_memory_allocated_gb": "memory/peak_gib",  # GiB for all its name, of one trainer's GPU
}
"""verl's name → ours, where the figure is the same. Those that take more than a name: `_training`."""

_VALIDATION = re.compile(r"val-(?:core|aux)/(?P<source>.*)/(?P<key>[^/]+)/mean@\d+")
_FILE = re.compile(r"metrics-(\d+)\.jsonl")


def to_records(
    line: Mapping[str, Any],
    rollouts: Sequence[Mapping[str, Any]] | None = None,
    validation: Sequence[Mapping[str, Any]] | None = None,
    *,
    task: Task[Any] | None = None,
    longest: int | None = None,
) -> list[Record]:
    """Our records of one line of verl's log: of training, of the held-out rows, or both. What is unknown is left out.

    Args:
        line: `{"step": n, "data": {name: value}}`.
        rollouts: the dump of the step's training samples; for the spread of rewards within groups, and with a task
            for accuracy, mae and parse_rate.
        validation: the dump of the held-out samples; with a task, for every figure of `rmg eval`.
        task: reads the verdicts in the dumps. Without it, only figures that the rows carry.
        longest: `rollout.max_response_length`, for the share of responses that were cut off.
    """
    records = _of_line(line, longest)
    if validation and not any(record["split"] == "val" for record in records):
        records.append({"step": int(line["step"]), "split": "val"})
    dumps = {"train": of_rollouts(rollouts or (), task), "val": of_validation(validation or (), task)}
    # the line goes before the dump: it is what tells a record of this run from one of an earlier try
    return [{**record, **_finite(dumps[record["split"]]), **record} for record in records]


class Mirror:
    """Keeps a run's `metrics.jsonl` in step with what verl writes.

    It holds no state outside the folder: a mirror that starts anew goes on where the last one ended. A resumed run
    writes a new `metrics-K.jsonl`, whose first line says from which step on the earlier ones no longer count; there
    is no need to call `RunFolder.forget_after`.

    Args:
        run: the folder, with its `config.yaml`.
        settle: seconds after which a dump is taken to be complete: verl writes them from a thread of its own.
        patience: seconds to wait for a dump that does not come, is not finished, or is still an earlier try's.

    Raises:
        ConfigError: the run's configuration or card cannot be read.
    """

    def __init__(self, run: RunFolder, *, settle: float = 1.0, patience: float = 10.0) -> None:
        self.run = run
        self.folder = run.path / "verl"
        self.settle = settle
        self.patience = patience
        config = load_config(run.path / "config.yaml")
        saved = load_saved_task(run.path, trust_remote_code=True)  # one's own; its paths hold in every folder
        self.task = saved.task if saved else config.build_task()
        self.longest = config.rollout.max_response_length
        self._tails: dict[Path, _Tail] = {}
        self._lines: dict[Key, Record] = {}
        """What verl's files say, without the dumps and without what a resumed run made void."""
        self._kept: float = math.inf
        """The step after which only the newest file counts."""
        self._written: dict[Key, Record] | None = None

    def poll(self, *, last: bool = False) -> list[Record]:
        """Append what is new to `metrics.jsonl` and return it. Calling it again changes nothing.

        Args:
            last: nothing more will come; take the dumps as they lie.

        Raises:
            DataError: our own `metrics.jsonl` is damaged; names the line.
        """
        self._read()
        written = self._forget_void()
        new = []
        for key, record in self._lines.items():
            if key in written:
                continue
            figures = self._of_dump(record, last)
            if figures is None:
                break  # in order: the later ones wait too
            complete = {**record, **_finite(figures), **record}
            self.run.append(complete)
            written[key] = complete
            new.append(complete)
        self._link_best(written)
        return new

    def has_line(self, step: int) -> bool:
        """Whether verl has written a line of this training step."""
        self._read()
        return (step, "train") in self._lines

    def _link_best(self, written: Mapping[Key, Record]) -> None:
        """Point `best` at the checkpoint with the highest held-out reward, of those that verl still keeps."""
        found: list[tuple[float, int, Path]] = []
        for (step, split), record in written.items():
            actor = self.run.path / f"global_step_{step}" / "actor"
            if split == "val" and record.get("reward/mean") is not None and (actor / CARD).is_file():
                found.append((record["reward/mean"], -step, actor))
        if found:
            best = max(found)[2]
            if self.run.best.resolve() != best.resolve():
                self.run.link(self.run.best, best)
        elif self.run.best.is_symlink() and not self.run.best.exists():
            self.run.best.unlink()  # verl has removed it

    def _read(self) -> None:
        for path in sorted(
            (p for p in self.folder.glob("metrics-*.jsonl") if _FILE.fullmatch(p.name)), key=_number
        ):
            tail = self._tails.setdefault(path, _Tail(path))
            for line in tail.read():
                records = _of_line(line, self.longest)
                if records and not tail.begun:
                    tail.begun = True
                    # a resumed run may begin with held-out figures of the step it goes on from
                    step, split = _key(records[0])
                    self._kept = step - 1 if split == "train" else step
                    self._lines = {key: r for key, r in self._lines.items() if key[0] <= self._kept}
                for record in records:
                    self._lines.setdefault(_key(record), record)

    def _forget_void(self) -> dict[Key, Record]:
        """Drop from `metrics.jsonl` what an earlier try wrote of steps that were run again."""
        file = self.run.metrics
        if self._written is None:
            self._written = {_key(r): dict(r) for r in read_log(file)} if file.is_file() else {}
            if file.is_file() and not file.read_bytes().endswith(b"\n"):
                self.run.forget_after(sys.maxsize)  # half a line, which the next one would be appended to
        void = [key for key, record in self._written.items() if self._is_void(key, record)]
        if void:
            first = min(step for step, _ in void)
            self.run.forget_after(first - 1)
            self._written = {key: r for key, r in self._written.items() if key[0] < first}
        return self._written

    def _is_void(self, key: Key, record: Record) -> bool:
        line = self._lines.get(key)
        if line is None:
            return key[0] > self._kept
        return any(record.get(name) != value for name, value in line.items())

    def _dump(self, step: int, split: str) -> Path:
        return self.folder / ("rollouts" if split == "train" else "validation") / f"{step}.jsonl"

    def _of_dump(self, record: Record, last: bool) -> Record | None:
        """What the step's dump adds to its line; None while it is worth waiting for."""
        step, split = _key(record)
        path = self._dump(step, split)
        now = time.time()
        quiet = now - max(tail.changed for tail in self._tails.values())
        enough = last or step < max(other for other, _ in self._lines) or quiet >= self.patience
        if not path.is_file():
            return {} if enough else None
        if not last and 0 <= now - path.stat().st_mtime < self.settle:
            return None
        if enough or ends_with_a_line(path):
            rows = read_rows(path)
            if belongs(rows, record.get("reward/mean")):
                return self._figures(rows, split, path)
        return {} if enough else None

    def _figures(self, rows: Rows, split: str, path: Path) -> Record:
        """A reward of one's own may raise anything, and a run is not to end for a figure beside its own."""
        try:
            return (of_rollouts if split == "train" else of_validation)(rows, self.task)
        except Exception as error:  # noqa: BLE001 - whatever one's own code raises
            logger.warning("%s: no figures of these samples: %s: %s", path, type(error).__name__, error)
            return {}


class _Tail:
    """A file that grows by lines; one that is cut short starts over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.changed = 0.0
        self.begun = False
        """Whether its first figures were read; the reader says so."""

    def read(self) -> Iterator[dict[str, Any]]:
        """The complete lines since the last call."""
        found = self.path.stat()
        self.changed = found.st_mtime
        if found.st_size < self.offset:
            self.offset, self.begun = 0, False
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read()
        for text in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
            self.offset += len(text)
            try:
                line = json.loads(text)
                step, data = int(line["step"]), dict(line["data"])
            except (ValueError, KeyError, TypeError):
                logger.warning("%s: a line that is not of verl's logger is left out: %.80r", self.path, text)
                continue
            yield {"step": step, "data": data}


def _of_line(line: Mapping[str, Any], longest: int | None) -> list[Record]:
    step, data = int(line["step"]), line["data"]
    records = []
    if "training/global_step" in data:
        records.append({"step": step, "split": "train", **_finite(_training(data, longest))})
    if any(name.startswith(("val-core/", "val-aux/")) for name in data):
        records.append({"step": step, "split": "val", **_finite(_validation(data))})
    return records


def _training(data: Mapping[str, Any], longest: int | None) -> Record:
    found = {ours: data[theirs] for theirs, ours in NAMES.items() if theirs in data}
    if not found.get("memory/peak_gib"):
        found.pop("memory/peak_gib", None)  # the stand-in for a GPU counts nothing
    # the old policy's and the reference's, as the local engine counts them
    passes = [data[name] for name in ("timing_s/old_log_prob", "timing_s/ref") if data.get(name) is not None]
    if passes:
        found["timing_s/log_probs"] = sum(passes)
    if data.get("timing_s/step") is not None:
        # saving is not part of a step's time
        seconds = data["timing_s/step"] - (data.get("timing_s/save_checkpoint") or 0.0)
        found["timing_s/step"] = seconds
        if data.get("perf/total_num_tokens") is not None and seconds > 0:
            # of all GPUs together, prompts and responses; verl's own rate is a GPU's
            found["tokens_per_second"] = data["perf/total_num_tokens"] / seconds
    # verl compares with the longest response of the batch, which may be shorter than the limit
    reached = data.get("response_length/max")
    if longest is not None and reached is not None and "response_length/clip_ratio" in data:
        found["response_length/clip_ratio"] = (
            data["response_length/clip_ratio"] if reached >= longest else 0.0
        )
    return found


def _validation(data: Mapping[str, Any]) -> Record:
    values: dict[str, list[Any]] = {}
    for name, value in data.items():
        if (match := _VALIDATION.fullmatch(name)) and match["key"] in HELD_OUT:
            values.setdefault(HELD_OUT[match["key"]], []).append(value)
    # of several sources verl does not say how many rows each has: their mean takes the dump
    found: Record = {ours: value[0] for ours, value in values.items() if len(value) == 1}
    if "timing_s/testing" in data:
        found["seconds"] = data["timing_s/testing"]
    return found


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _key(record: Mapping[str, Any]) -> Key:
    return int(record["step"]), str(record.get("split", "train"))


def _finite(values: Mapping[str, Any]) -> Record:
    """NaN is not JSON: an undefined figure is null."""
    return {
        name: float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
        for name, value in values.items()
    }
