"""Sources: which files a path stands for, each with the split that its name says."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Any

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.errors import DataError, nearest

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
_LFS = b"version https://git-lfs"
_SPLIT_NAME = re.compile(r"(train|validation|valid|val|test|dev|eval)(ing|set|s)?(?![a-z])")


@dataclass
class Source(ABC):
    """Something to read rows from. Iterating gives `(line, row)`, counted from 1."""

    name: str
    """How messages name it: the path, or the dataset with its split."""
    folder: str = ""
    """The subfolder it lies in, below the folder or glob that was asked for."""
    split: str | None = None
    """The split that its name says."""
    size: int = 0
    """Bytes or rows, for the progress; `position` is in the same unit."""
    position: int = field(default=0, compare=False)

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        """The rows with their lines, and a `BadRow` for each that cannot be read."""

    def first_row(self) -> dict[str, Any] | None:
        """The first row that can be read at all."""
        rows = iter(self)
        found = next((row for _, row in rows if not isinstance(row, BadRow)), None)
        getattr(rows, "close", lambda: None)()
        self.position = 0
        return found


@dataclass
class FileSource(Source):
    """A file of one of the `SUFFIXES`."""

    path: Path = Path()

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        from rm_gallery.core.data.readers import read_file

        return read_file(self)


def split_of(name: str | None) -> str | None:
    """The split that a file name or a `split` field says: "train", "validation", "test", or None."""
    match = _SPLIT_NAME.match(name.lower()) if name else None
    if match is None:
        return None
    word = match[1]
    return "validation" if word in ("valid", "val", "dev", "eval") else word


def find_files(path: str) -> tuple[list[FileSource], list[str]]:
    """The files that a path stands for, in the order of their names, and notices about the choice.

    Raises:
        DataError: nothing there, nothing of a known format, or a Git LFS pointer in place of a file.
    """
    asked = Path(path).expanduser()
    notices: list[str] = []
    if has_magic(str(asked)) and not asked.exists():
        root, files = _matching(asked)
    elif asked.is_dir():
        root, files = asked, [file for file in sorted(asked.iterdir()) if _suffix(file)]
        _check_folder(asked, files)
    elif asked.is_file():
        root, files = asked.parent, [asked]
        if not _suffix(asked):
            raise DataError(f"{asked} is of no format that can be read: {', '.join(SUFFIXES)}")
    else:
        root, files = asked.parent, [_compressed(asked, notices)]
    files = _without_copies(files, notices)
    for file in files:
        _refuse_pointer(file)
    return [
        FileSource(
            name=str(file),
            folder="" if file.parent == root else file.parent.relative_to(root).as_posix(),
            split=split_of(file.name),
            size=file.stat().st_size,
            path=file,
        )
        for file in files
    ], notices


def _suffix(file: Path) -> str | None:
    if file.name.startswith(".") or not file.is_file():
        return None
    return next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)


def _matching(pattern: Path) -> tuple[Path, list[Path]]:
    """The files that match, and the folder before the first wildcard."""
    parts = pattern.parts
    plain = next(index for index, part in enumerate(parts) if has_magic(part))
    root = Path(*parts[:plain])
    files = sorted(file for file in root.glob(str(Path(*parts[plain:]))) if _suffix(file))
    if not files:
        raise DataError(f"no file of a format that can be read ({', '.join(SUFFIXES)}) matches {pattern}")
    return root, files


def _check_folder(folder: Path, files: list[Path]) -> None:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        raise DataError(f"{folder} was saved by the `datasets` package: set configs.type to huggingface")
    if not files:
        below = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
        hint = f"; folders are not read recursively, and it holds {', '.join(below)}" if below else ""
        raise DataError(f"{folder} holds no file that can be read ({', '.join(SUFFIXES)}){hint}")


def _compressed(asked: Path, notices: list[str]) -> Path:
    """The file with `.gz` added, for a path that does not exist as written."""
    compressed = asked.with_name(asked.name + ".gz")
    if compressed.is_file() and _suffix(compressed):
        notices.append(f"{asked} does not exist; reading {compressed.name} beside it")
        return compressed
    names = [path.name for path in asked.parent.iterdir()] if asked.parent.is_dir() else []
    where = "" if asked.parent.is_dir() else f" (nor the folder {asked.parent})"
    raise DataError(f"{asked} does not exist{where}.{nearest(asked.name, names)}")


def _without_copies(files: list[Path], notices: list[str]) -> list[Path]:
    """Leave out `x.jsonl.gz` where `x.jsonl` is read too: `gunzip -k` keeps both."""
    every = set(files)
    kept = [file for file in files if not (file.suffix == ".gz" and file.with_suffix("") in every)]
    for file in files:
        if file not in kept:
            notices.append(f"{file} is left out: {file.with_suffix('').name} beside it is read")
    return kept


def _refuse_pointer(file: Path) -> None:
    try:
        with file.open("rb") as raw:
            start = raw.read(len(_LFS))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if start == _LFS:
        raise DataError(
            f"{file} is a Git LFS pointer, not the data: run `git lfs pull` in {file.parent}, or download it"
        )
    if not start:
        raise DataError(f"{file} is empty: download or write it again, or move it away")
