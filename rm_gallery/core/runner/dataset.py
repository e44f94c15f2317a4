"""`open_dataset`: whatever holds items, as one asynchronous iterator that never holds them all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.data.sources import FileSource, find_files
from rm_gallery.core.errors import ConfigError

logger = logging.getLogger("rm_gallery.runner")

Dataset = str | Path | Iterable[Any] | AsyncIterable[Any]
"""A path (`.parquet`, `.jsonl`, `.jsonl.gz`, `.json`, `.csv`, a folder or glob of them), a list, or any iterable."""


class Items:
    """The items of a dataset, in order.

    Attributes:
        total: how many there are; None where that is not known beforehand.
    """

    def __init__(self, items: Iterator[Any] | AsyncIterator[Any], total: int | None) -> None:
        self._items = items
        self.total = total

    async def next(self) -> Any:
        """The next item. Raises `StopAsyncIteration` behind the last."""
        if isinstance(self._items, AsyncIterator):
            return await self._items.__anext__()
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """Close the file or generator."""
        if hasattr(self._items, "aclose"):
            await self._items.aclose()
        elif hasattr(self._items, "close"):
            self._items.close()


def open_dataset(dataset: Dataset) -> Items:
    """Open a dataset.

    Of a file, a line that is no row comes as a `BadRow`, so that all others keep their place.

    Raises:
        ConfigError: it is nothing that holds items.
        DataError: there is no such file.
    """
    if isinstance(dataset, (str, Path)):
        files, notices = find_files(str(dataset))
        for notice in notices:
            logger.warning("%s", notice)
        return Items(_rows(files), _count(files))
    if isinstance(dataset, Mapping):
        raise ConfigError("the dataset is one mapping; expected a list of items, each a mapping")
    if hasattr(dataset, "iterrows"):
        raise ConfigError(
            'the dataset is a DataFrame, which gives its column names; give df.to_dict("records")'
        )
    if isinstance(dataset, AsyncIterable):
        return Items(aiter(dataset), None)
    if isinstance(dataset, Iterable):
        total = len(dataset) if isinstance(dataset, Sized) else None
        return Items(iter(dataset), total)
    raise ConfigError(f"the dataset is a {type(dataset).__name__}; expected a path, a list or an iterable")


def _rows(files: list[FileSource]) -> Iterator[Any]:
    for file in files:
        for line, row in file:
            yield BadRow(f"{file.name}:{line}: {row}") if isinstance(row, BadRow) else row


def _count(files: list[FileSource]) -> int | None:
    """Parquet files say how many rows they have; the others are not read twice for it."""
    if not all(file.path.suffix == ".parquet" for file in files):
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return sum(int(pq.read_metadata(file.path).num_rows) for file in files)
    except (OSError, pa.ArrowException):
        return None  # reading it says what is wrong
