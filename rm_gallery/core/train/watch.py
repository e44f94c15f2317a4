"""What a run's folder says while it trains, for either engine; nothing is asked of the process that trains."""

from __future__ import annotations

import os
import re
import shlex
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.train.config import TrainConfig, load_config
from rm_gallery.core.train.log import TrainingRun, read_log
from rm_gallery.core.train.run_folder import RunFolder

State = Literal["starting", "running", "stalled", "failed", "finished"]
BLOCKS = "▁▂▃▄▅▆▇█"

_HEAD, _TAIL = 2**20, 2**16
_LINES = 40
"""Of the log's end: an error further up was survived."""
_ERROR = re.compile(r"Traceback \(most recent call last\)|\b\w*(?:Error|Exception): |\b(?:ERROR|CRITICAL)\b")
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_OVERLONG = re.compile(r"(\d+) (?:training|of (\d+)) prompts are over data\.max_prompt_length")
_STEPS = re.compile(r"rm_gallery\.train: (\d+) steps on \d+ ")
"""What the local engine says once it has read its rows."""
_CHECKPOINT = re.compile(r"(checkpoint-|global_step_)(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """Where a link of the run points to."""

    name: str
    step: int


@dataclass(frozen=True)
class Snapshot:
    """A run as its folder shows it at one moment.

    Attributes:
        run: its figures, by `series`.
        total: the steps it will take; None where that cannot be known.
        exact: `total` is set or logged; otherwise it follows from the rows, of which some may be left out as too long.
        quiet: seconds since anything in the folder was written.
        log: the last lines of `logs/training.log`.
    """

    path: Path
    config: TrainConfig
    run: TrainingRun
    total: int | None
    exact: bool
    latest: Checkpoint | None
    best: Checkpoint | None
    quiet: float
    log: tuple[str, ...]

    @property
    def step(self) -> int:
        """The last step that was trained; 0 before the first."""
        return max((int(record["step"]) for record in self.records("train")), default=0)

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last ten steps."""
        seconds = self.run.series("timing_s/step", "train")[1][-10:]
        return statistics.median(seconds) if seconds else None

    @property
    def seconds(self) -> float:
        """What steps and held-out evaluations took so far, without loading and saving."""
        return sum(self.run.series("timing_s/step", "train")[1]) + sum(self.run.series("seconds", "val")[1])

    @property
    def seconds_left(self) -> float | None:
        """An estimate, with the evaluations still to come; None where it cannot be known."""
        if self.total is None or self.seconds_per_step is None:
            return None
        every, judged = self.config.train.eval_every, self.run.series("seconds", "val")[1]
        times = {
            s for s in range(self.step + 1, self.total + 1) if s == self.total or (every and s % every == 0)
        }
        return max(0, self.total - self.step) * self.seconds_per_step + (
            len(times) * judged[-1] if judged else 0
        )

    @property
    def state(self) -> State:
        """`failed` is an error at the end of the log and silence since; `stalled` only the silence."""
        if (
            self.total is not None
            and self.latest is not None
            and min(self.step, self.latest.step) >= self.total
        ):
            return "finished"
        judging = (self.run.series("seconds", "val")[1] or [0.0])[-1]
        step = (self.seconds_per_step or 0.0) + judging
        if self.quiet >= max(10.0, 1.5 * step) and any(_ERROR.search(line) for line in self.log):
            return "failed"
        if self.seconds_per_step is None:  # a large model takes minutes to load
            return "stalled" if self.quiet >= 300 else "starting"
        return "stalled" if self.quiet >= max(60.0, 3 * step) else "running"

    @property
    def next_command(self) -> str:
        """What to do with the finished run."""
        latest = shlex.quote(str(self.path / "actor_latest"))
        if self.config.engine == "verl":
            return f"rmg merge {latest} {shlex.quote(str(self.path / 'merged'))}"
        data = self.config.data
        held_out = shlex.quote(str(data.val)) if data.val else "FILE.parquet"
        return f"rmg eval --model {latest} --data {held_out} --train {shlex.quote(str(data.train))}"

    def records(self, split: str) -> list[Mapping[str, Any]]:
        """The lines of `train` or `val`, by step."""
        found = [record for record in self.run.records if record.get("split", "train") == split]
        return sorted(found, key=lambda record: int(record["step"]))


def read_snapshot(path: Path, now: float | None = None) -> Snapshot:
    """Read the folder of a run as it stands; `now` is for tests.

    Raises:
        ConfigError: there is no run of ours in it; says what to do.
        DataError: its metrics are damaged; names the line.
    """
    run = RunFolder(path)
    if not (path / "config.yaml").is_file():
        raise ConfigError(_no_run(path))
    config = load_config(path / "config.yaml")
    now = time.time() if now is None else now
    head, tail = _read_ends(path / "logs" / "training.log")
    records = read_log(run.metrics) if run.metrics.is_file() else ()
    updates = config.train.batch_size // config.mini_batch_size
    return Snapshot(
        path=path,
        config=config,
        run=TrainingRun(path.resolve().name, records),
        total=int(said[-1]) if (said := _STEPS.findall(head)) else _total_steps(config, path, head),
        exact=bool(said) or config.train.max_steps is not None,
        latest=_checkpoint(run.latest, updates),
        best=_checkpoint(run.best, updates),
        quiet=max(0.0, now - max(_changes(path))),
        log=tuple(_lines(tail)[-_LINES:]),
    )


class Curve(NamedTuple):
    """A curve in block characters, and what its lowest and its highest block stand for."""

    blocks: str
    low: float
    high: float


def sparkline(steps: Sequence[int], values: Sequence[float], width: int, span: tuple[int, int]) -> Curve:
    """Draw values over the steps `span`, both ends included, one column a step or more.

    A column is the mean of its steps' values. Where there is none, the value before it holds on; before the first
    value there is nothing.

    Args:
        steps: N of them, ascending, N at least 1.
        values: of the steps.
        width: columns at most.
    """
    first, length = span[0], span[1] - span[0] + 1
    width = min(width, length)
    columns: list[list[float]] = [[] for _ in range(width)]
    for step, value in zip(steps, values, strict=True):
        columns[(step - first) * width // length].append(value)
    means: list[float | None] = []
    for column in columns:
        means.append(statistics.fmean(column) if column else means[-1] if means else None)
    known = [value for value in means if value is not None]
    low, high = min(known), max(known)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    drawn = (" " if value is None else BLOCKS[round((value - low) * scale)] for value in means)
    return Curve("".join(drawn), low, high)


def _no_run(path: Path) -> str:
    if not path.exists():
        return f"there is no folder {path}"
    runs = sorted(
        (f.parent for f in path.glob("*/config.yaml")), key=lambda p: (p / "config.yaml").stat().st_mtime
    )
    if runs:
        return f"{path} holds no run itself; its newest one is {runs[-1]}"
    return (
        f"{path} holds no run (there is no config.yaml in it): give the folder of a run of `rmg train`. A run that "
        "was started with verl itself is not read"
    )


def _total_steps(config: TrainConfig, run: Path, log: str) -> int | None:
    train = config.train
    if train.max_steps is not None:
        return train.max_steps
    # a relative path is meant from where the run was started, most likely a folder that the run lies in
    for base in (Path(), *run.resolve().parents):
        rows = _count_rows(base / config.data.train.expanduser())
        if rows is not None:
            break
    else:
        return None
    rows = min(rows, config.data.limit or rows)
    for count, of in _OVERLONG.findall(log):
        if not of or int(of) == rows:
            rows -= int(count)
            break
    per_epoch = rows // train.batch_size
    return max(1, round(train.epochs * per_epoch)) if per_epoch > 0 else None


@lru_cache(maxsize=8)
def _count_rows(path: Path) -> int | None:
    """None where the file is not here: the run may have been made on another machine, or in another folder."""
    from rm_gallery.core.data.rows import load_rows

    if not path.exists():
        return None
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.ParquetFile(path).metadata.num_rows)  # without reading them
        except (OSError, pa.ArrowInvalid):
            return None
    try:
        return len(load_rows(path))
    except DataError:
        return None


def _checkpoint(link: Path, updates: int) -> Checkpoint | None:
    """The local engine names its folders by updates, verl by steps."""
    try:
        found = _CHECKPOINT.search(os.readlink(link))
    except OSError:
        return None
    if not found or not link.exists():
        return None
    number = int(found[2])
    return Checkpoint(found[0], number // updates if found[1] == "checkpoint-" else number)


def _changes(path: Path) -> Iterator[float]:
    yield path.stat().st_mtime
    for pattern in ("*", "logs/*", "verl/*"):
        for entry in path.glob(pattern):
            try:
                yield entry.lstat().st_mtime
            except FileNotFoundError:  # written under a temporary name, and moved meanwhile
                continue


def _read_ends(log: Path) -> tuple[str, str]:
    """The beginning and the end of a log that may be large."""
    try:
        with log.open("rb") as file:
            head = file.read(_HEAD)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    except FileNotFoundError:
        return "", ""
    return head.decode("utf-8", "replace"), tail.decode("utf-8", "replace")


def _lines(text: str) -> list[str]:
    """As a terminal would have shown them: without escape sequences, and of redrawn lines the last state."""
    plain = (_ESCAPE.sub("", line.rstrip("\r")).rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return [line for line in plain if line]
