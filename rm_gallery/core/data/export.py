"""Export: samples into files, written under a temporary name and moved only when everything succeeded."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import orjson

from rm_gallery.core.data.columns import DICTIONARY_COLUMNS, Columns
from rm_gallery.core.data.samples import Pair, Sample
from rm_gallery.core.errors import DataError

_GROUP_ROWS = 16_384
_GROUP_BYTES = 8 << 20  # what a split holds in memory before it is written as a row group


class _Writer(Protocol):
    def write(self, samples: Sequence[Sample | Pair]) -> None: ...
    def close(self) -> None: ...


class Exporter:
    """Writes samples to one file per (subfolder, split, format), as a context manager.

    Leaving it without `commit` removes what was written; files of an earlier run stay as they were.

    Args:
        output_dir: where; created if needed.
        name: files are `{name}_{split}.{format}`.
        formats: of `parquet`, `jsonl`, `json`.
        columns: the schema.
    """

    def __init__(self, output_dir: Path, name: str, formats: Sequence[str], columns: Columns) -> None:
        self._dir, self._name, self._formats, self._columns = output_dir, name, formats, columns
        self._open: dict[Path, _Writer] = {}
        self._buffers: dict[tuple[str, str], list[Sample | Pair]] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        # encoding Parquet leaves the interpreter free, so it runs beside the reading, one group ahead
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._pending: Future[None] | None = None

    def paths(self, folder: str, split: str) -> list[Path]:
        """The files that this subfolder and split go to."""
        return [self._dir / folder / f"{self._name}_{split}.{kind}" for kind in self._formats]

    def add(self, folder: str, split: str, samples: Sequence[Sample | Pair], size: int) -> None:
        """Add samples of together about `size` bytes. Raises `DataError` where they cannot be written."""
        key = (folder, split)
        buffer = self._buffers.setdefault(key, [])
        buffer.extend(samples)
        self._sizes[key] = self._sizes.get(key, 0) + size
        if len(buffer) >= _GROUP_ROWS or self._sizes[key] >= _GROUP_BYTES:
            self._flush(key)

    def commit(self) -> list[Path]:
        """Write what is left, and move every file to its name. Returns the files."""
        for key in list(self._buffers):
            self._flush(key)
        self._wait()
        try:
            for writer in self._open.values():
                writer.close()
            for path in self._open:
                if path.is_dir():  # before the first is moved: all of them are, or none
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            for path in self._open:
                os.replace(_temporary(path), path)
        except OSError as error:
            raise _unwritable(self._dir, error) from error
        done, self._open = list(self._open), {}
        return done

    def __enter__(self) -> Exporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        for path, writer in self._open.items():
            with suppress(OSError):  # nothing of it is kept, so a failing close has nothing to say
                writer.close()
            _temporary(path).unlink(missing_ok=True)

    def _flush(self, key: tuple[str, str]) -> None:
        samples = self._buffers.pop(key, [])
        self._sizes[key] = 0
        self._wait()
        if samples:
            self._pending = self._thread.submit(self._write, key, samples)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, key: tuple[str, str], samples: list[Sample | Pair]) -> None:
        try:
            for path in self.paths(*key):
                if path not in self._open:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._open[path] = _WRITERS[path.suffix](_temporary(path), self._columns)
                self._open[path].write(samples)
        except OSError as error:
            raise _unwritable(self._dir, error) from error


class _ParquetWriter:
    def __init__(self, path: Path, columns: Columns) -> None:
        import pyarrow.parquet as pq

        self._columns = columns
        self._writer: Any = pq.ParquetWriter(
            path,
            columns.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=list(DICTIONARY_COLUMNS),
            write_statistics=list(columns.labels),  # of whole texts they would only bloat the footer
        )

    def write(self, samples: Sequence[Sample | Pair]) -> None:
        self._writer.write_table(self._columns.table(samples))

    def close(self) -> None:
        self._writer.close()


class _LinesWriter:
    _start, _between, _end = b"", b"\n", b"\n"

    def __init__(self, path: Path, columns: Columns) -> None:
        self._columns = columns
        self._file: IO[bytes] = path.open("wb")
        self._separator = self._start

    def write(self, samples: Sequence[Sample | Pair]) -> None:
        for sample in samples:
            self._file.write(self._separator)
            self._file.write(orjson.dumps(self._columns.row(sample)))
            self._separator = self._between

    def close(self) -> None:
        if not self._file.closed:
            with self._file as file:
                file.write(self._end)


class _ArrayWriter(_LinesWriter):
    _start, _between, _end = b"[\n", b",\n", b"\n]\n"


_WRITERS: dict[str, Any] = {".parquet": _ParquetWriter, ".jsonl": _LinesWriter, ".json": _ArrayWriter}


def _temporary(path: Path) -> Path:
    # of this process, so that two runs do not write into the same one
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(f"{error.filename or folder} cannot be written: {error.strerror or error}")
