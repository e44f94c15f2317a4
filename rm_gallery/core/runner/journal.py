"""The journal of a run: every grade a line, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.graders import GraderError, GraderResult, result_to_json
from rm_gallery.core.graders.result import result_from_fields
from rm_gallery.core.locks import lock

ANSWERED = frozenset({"unparsable", "unfinished", "invalid_output", "overlong"})
"""The kinds of a `GraderError` that are what the judge answered. A judge asked until it suits has another invalid rate."""

_START = b'{"key": "'
_SYNC_EVERY = 1.0  # second


def keeps(result: GraderResult) -> bool:
    """Whether a result stands: a failed request does not, and is made again by the next run."""
    return not isinstance(result, GraderError) or result.kind in ANSWERED


class GradingJournal:
    """A file of JSON Lines, `{"key": …, "grader": …, "type": …, …}`, appended as grades come.

    Where they stand in the file is kept in a temporary database on the disk, so that a run of any length holds no
    more of them in memory than it is about to give back.

    A line is written before its grade is given back, so that no kill loses it; it is on the disk a second later, so
    that a power failure costs a second. A line cut short is ignored, and its item graded again. One run at a time
    writes a journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._users = 0
        self._file: IO[bytes] | None = None
        self._places: sqlite3.Connection | None = None
        self._torn = False
        self._synced = 0.0

    @contextmanager
    def open(self) -> Iterator[GradingJournal]:
        """Read what is there, and lock it. Passes of one runner share it.

        Raises:
            ConfigError: another run writes it, or the file is no journal.
        """
        if self._users == 0:
            self._begin()
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if self._users == 0:
                self._end()

    def get(self, key: str) -> GraderResult | None:
        """The grade of a key, None where there is none."""
        assert self._places is not None
        assert self._file is not None
        found = self._places.execute("select place, size from grades where key = ?", (key,)).fetchone()
        if found is None:
            return None
        try:
            return _read(os.pread(self._file.fileno(), found[1], found[0]))
        except (ValueError, TypeError, KeyError):
            return None  # a line that is JSON and no grade

    def add(self, key: str, grader: str, result: GraderResult) -> GraderResult:
        """Append a grade, and give it back as it will be read.

        Raises:
            TypeError: its metadata holds what is no JSON value.
            OSError: the disk is full.
        """
        assert self._file is not None
        # its own fields follow behind ours: a flat line is read by other tools too
        line = f'{_START.decode()}{key}", "grader": {json.dumps(grader)}, {result_to_json(result)[1:]}\n'.encode()
        place = self._file.seek(0, os.SEEK_END)
        start = b"\n" if self._torn else b""
        self._torn = True  # until the whole line is written
        data = memoryview(start + line)
        while data:
            data = data[self._file.write(data) :]
        self._torn = False
        self._note(key, place + len(start), len(line))
        if time.monotonic() - self._synced > _SYNC_EVERY:
            self._sync()
        return _read(line)

    def __len__(self) -> int:
        """How many grades it holds."""
        assert self._places is not None
        count: int = self._places.execute("select count(*) from grades").fetchone()[0]
        return count

    def _begin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+b", buffering=0)
        try:
            lock(file, self.path, "wait for it, or give this one a journal of its own")
            file.seek(0)
            start = file.read(len(_START)) or b""
            if not _START.startswith(start):
                raise ConfigError(f"{self.path} is no journal of a run: give a file that is not there yet")
            places = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a temporary file
            for setting in ("journal_mode = off", "synchronous = off"):
                places.execute(f"pragma {setting}")
            places.execute(
                "create table grades (key text primary key, place integer, size integer) without rowid"
            )
            self._file, self._places = file, places
            self._load()
        except BaseException:
            file.close()
            raise

    def _load(self) -> None:
        assert self._file is not None
        place, line = 0, b""
        with self.path.open("rb") as lines:
            for line in lines:
                with suppress(ValueError, KeyError, TypeError):
                    self._note(json.loads(line)["key"], place, len(line))
                place += len(line)
        self._torn = bool(line) and not line.endswith(b"\n")

    def _note(self, key: str, place: int, size: int) -> None:
        assert self._places is not None
        self._places.execute("insert or replace into grades values (?, ?, ?)", (key, place, size))

    def _sync(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _end(self) -> None:
        assert self._file is not None
        assert self._places is not None
        self._sync()
        self._file.close()
        self._places.close()
        self._file = self._places = None


def _read(line: bytes) -> GraderResult:
    fields = json.loads(line)
    del fields["key"], fields["grader"]
    return result_from_fields(fields)
