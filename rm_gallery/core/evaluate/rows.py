"""Reading labelled rows for evaluation: Parquet and JSON Lines, in either shape of the columns."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rm_gallery.core.data.samples import Row
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.predictions import task_kind
from rm_gallery.core.tasks import Task


def load_rows(path: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a `.parquet`, `.jsonl` or `.jsonl.gz` file, the first `limit` of them.

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
    else:
        raise DataError(
            f"{source}: expected .parquet, .jsonl or .jsonl.gz; rmg data convert turns other formats into Parquet"
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


def infer_task(rows: Sequence[Row]) -> str:
    """`pairwise` where the rows carry `preferred`, else `pointwise`."""
    return "pairwise" if "preferred" in rows[0] else "pointwise"


def check_rows(task: Task[Any], rows: Sequence[Row]) -> None:
    """Build every question and read every label once, so that nothing fails after the model has loaded.

    Raises:
        ConfigError: the task's verdicts are neither whole scores nor preferences.
        DataError: a row has no query, no response, or a missing or bad label; names it.
    """
    task_kind(task)
    for row in rows:
        task.messages(row)
        task.truth(row)


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
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
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}") from None
    return rows
