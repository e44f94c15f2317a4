"""The files that a configuration of verl names: whether they are there, and hold what is taken from them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


def missing_files(get: Callable[[str], Any]) -> Iterator[str]:
    """A sentence for each file that is not there, or does not hold what is asked of it.

    Args:
        get: the value of a key of the configuration.
    """
    for section, what in (("data.custom_cls", "class"), ("reward.custom_reward_function", "function")):
        file, name = _local(get(f"{section}.path")), get(f"{section}.name")
        if file is None:
            continue
        if not file.is_file():
            yield f"{section}.path names {file}, and there is no such file: give its path"
        elif name and not _defines(file, str(name)):
            yield f"{section}.name is {name!r}, and {file} defines no such {what}: give the name of one"
    batch = get("data.train_batch_size")
    for key in ("data.train_files", "data.val_files"):
        files = [path for path in _listed(get(key)) if path is not None]
        absent = [file for file in files if not file.expanduser().is_file()]
        for file in absent:
            yield f"{key} names {file}, and there is no such file: give its path, or make it with rmg data convert"
        if key == "data.train_files" and files and not absent and isinstance(batch, int):
            rows = sum(_rows(file.expanduser()) for file in files)
            if rows < batch:
                yield (
                    f"data.train_batch_size ({batch}) is over the {rows:.0f} rows of {key}, so that there is not "
                    f"one step: set it to {rows:.0f} or less"
                )


def _local(path: Any) -> Path | None:
    """The path of a file, or None where it is no file of this machine: verl also takes modules and remote stores."""
    text = str(path or "").removeprefix("file://")
    return None if not text or "://" in text else Path(text)


def _listed(value: Any) -> list[Path | None]:
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return [_local(item) for item in value] if several else [_local(value)]


def _defines(file: Path, name: str) -> bool:
    """Whether a module has a name at its top level, as far as reading it shows."""
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (SyntaxError, UnicodeDecodeError):
        return False
    names = set[str]()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.If | ast.Try):
            return True  # what is defined depends; verl will see
    return name in names or "*" in names


def _rows(file: Path) -> float:
    """The rows of a Parquet file; of another, more than any batch."""
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowInvalid

    try:
        return float(pq.read_metadata(file).num_rows)
    except ArrowInvalid:
        return float("inf")
