"""Reading the files that `rmg data convert` writes, whole, for training and evaluation."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import DataError


def load_rows(path: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a `.parquet`, `.jsonl`, `.jsonl.gz` or `.json` file, the first `limit` of them.

    Raises:
        DataError: no such file, another format, a broken line (names it), no rows, or source
            data that has not been converted.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise DataError(f"there is no file {source}; rmg data convert writes one")
    if source.suffix == ".parquet":
        rows = _parquet(source)
    elif source.name.endswith((".jsonl", ".jsonl.gz")):
        rows = _json_lines(source)
    elif source.suffix == ".json":
        rows = _json(source)
    else:
        raise DataError(
            f"{source}: expected .parquet, .jsonl, .jsonl.gz or .json; rmg data convert turns other formats into Parquet"
        )
    if not rows:
        raise DataError(f"{source} holds no rows")
    missing = [name for name in ("input", "output") if name not in rows[0]]
    if missing:
        raise DataError(
            f"{source} has no column {' and no '.join(missing)} (it has: {', '.join(rows[0])}); "
            "rmg data convert turns source files into rows"
        )
    return rows[:limit]


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    return rows


def _json_lines(path: Path) -> list[dict[str, Any]]:
    import orjson

    rows = []
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise DataError(f"{path}, line {number} is not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise DataError(f"{path}, line {number} is not an object")
                rows.append(row)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return rows


def _json(path: Path) -> list[dict[str, Any]]:
    import orjson

    try:
        rows = orjson.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} must hold an array of objects; .jsonl is one object a line")
    return rows
