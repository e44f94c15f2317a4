"""Readers: one generator per file format, giving `(line, row)` and never holding more than a batch.

A line that is no row comes as a `BadRow`, and reading goes on. What says that the whole file is damaged (a
truncated gz, broken Parquet, an array cut short) raises `DataError` with the file's name.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import orjson

from rm_gallery.core.data.converters import BadRow, Cell
from rm_gallery.core.errors import DataError

if TYPE_CHECKING:
    from rm_gallery.core.data.sources import FileSource

Rows = Iterator[tuple[int, dict[str, Any] | BadRow]]
_BUFFER = 1 << 20
_TICK = 256  # rows between updates of the position


def read_file(source: FileSource) -> Rows:
    """The rows of a file with their line: for `.json` and `.parquet`, the number of the row."""
    name = source.path.name.lower()
    try:
        with source.path.open("rb") as raw:
            if name.endswith(".parquet"):
                yield from _parquet(source, raw)
            elif name.endswith(".csv"):
                yield from _csv(source, raw)
            elif name.endswith(".json") and _first_byte(raw) != b"{":
                yield from _json_array(source, raw)
            elif name.endswith(".json"):
                yield from _json_object_or_lines(source, raw)
            elif name.endswith(".gz"):
                with gzip.open(raw) as unpacked:
                    # GzipFile.readline is Python; a BufferedReader over it is C
                    yield from _lines(source, io.BufferedReader(unpacked, _BUFFER), raw)
            else:
                yield from _lines(source, raw, raw)
    except EOFError:
        raise DataError(
            f"{source.path} is truncated: the gzip stream ends early; download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{source.path} is not a valid gzip file ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{source.path} cannot be read: {error}") from error
    source.position = source.size


def _lines(source: FileSource, lines: IO[bytes] | io.BufferedReader, raw: IO[bytes]) -> Rows:
    loads = orjson.loads
    for number, line in enumerate(lines, 1):
        if not number % _TICK:
            source.position = raw.tell()
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            row = loads(line)
        except orjson.JSONDecodeError:
            if line.isspace():
                continue
            yield number, BadRow("not a line of JSON", line[:60].decode(errors="replace").rstrip("\n"))
            continue
        yield number, row if type(row) is dict else BadRow("not a JSON object", row)


def _first_byte(raw: IO[bytes]) -> bytes:
    start = raw.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    raw.seek(0)
    return start


def _skip_mark(raw: IO[bytes]) -> None:
    if raw.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        raw.seek(0)


def _json_object_or_lines(source: FileSource, raw: IO[bytes]) -> Rows:
    """A `.json` that begins with an object: many publishers name JSON Lines so."""
    _skip_mark(raw)
    first = next((line for line in raw if line.strip()), b"")
    raw.seek(0)
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        raise DataError(
            f"{source.path} holds a single object; expected an array of objects, or one object a line"
        ) from None
    yield from _lines(source, raw, raw)


def _json_array(source: FileSource, raw: IO[bytes]) -> Rows:
    import ijson

    if _first_byte(raw) != b"[":
        raise DataError(f"{source.path} is not an array of objects: it does not begin with [")
    number = 0
    _skip_mark(raw)  # ijson takes it for a character
    try:
        for number, row in enumerate(ijson.items(raw, "item", use_float=True), 1):
            if not number % _TICK:
                source.position = raw.tell()
            yield number, row if type(row) is dict else BadRow("not a JSON object", row)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        shown = str(error).strip().splitlines()[0] if str(error).strip() else "it ends early"
        raise DataError(f"{source.path} is broken JSON after row {number}: {shown}") from error


def _csv(source: FileSource, raw: IO[bytes]) -> Rows:
    csv.field_size_limit(2**31 - 1)  # a response is often longer than the default of 128 KiB
    text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    end = 0
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{source.path}:1: a column name stands twice in the header {header}")
        end = reader.line_num
        for count, cells in enumerate(reader):
            line, end = end + 1, reader.line_num
            if not count % _TICK:
                source.position = raw.tell()
            if not cells:
                continue
            if len(cells) != len(header):
                yield line, BadRow(f"not {len(header)} cells as in the header", len(cells))
                continue
            yield line, dict(zip(header, map(Cell, cells), strict=True))
    except csv.Error as error:
        raise DataError(f"{source.path}:{end + 1}: not valid CSV: {error}") from error
    except UnicodeDecodeError as error:
        line = _first_undecodable(raw)
        raise DataError(f"{source.path}:{line} is not UTF-8; save the file in that encoding") from error
    finally:
        text.detach()  # the caller closes the file


def _first_undecodable(raw: IO[bytes]) -> int:
    """The line; the reader decodes many lines at a time, and knows none. No character of UTF-8 goes over a line's end."""
    raw.seek(0)
    for number, line in enumerate(raw, 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return number
    return 1


def _parquet(source: FileSource, raw: IO[bytes]) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(raw)
        total = max(1, file.metadata.num_rows)
        number = 0
        for batch in file.iter_batches(batch_size=_TICK):
            for row in _of_batch(batch):
                number += 1
                yield number, row
            source.position = source.size * number // total
    except pa.ArrowException as error:
        raise DataError(f"{source.path} is not a valid Parquet file: {error}") from error


def _of_batch(batch: Any) -> list[dict[str, Any] | BadRow]:
    try:
        rows: list[dict[str, Any] | BadRow] = batch.to_pylist()
    except UnicodeDecodeError:  # Parquet promises UTF-8, and a writer may not have kept to it
        rows = []
        for number in range(batch.num_rows):
            try:
                rows += batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError:
                rows.append(BadRow("a text is not UTF-8"))
    return rows
