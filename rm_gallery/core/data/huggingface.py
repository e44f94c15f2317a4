"""Datasets of the `datasets` package as sources: a folder it saved, a folder it can load, or a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.data.sources import Source, split_of
from rm_gallery.core.errors import DataError, MissingDependency

_BATCH = 256


@dataclass
class HuggingFaceSource(Source):
    """One split of a dataset, memory-mapped where it was saved and streamed where it is loaded."""

    dataset: Any = None

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        from datasets.exceptions import DatasetsError

        number = 0
        try:
            for batch in self.dataset.iter(batch_size=_BATCH):
                columns = list(batch)
                for values in zip(*batch.values(), strict=True):
                    number += 1
                    yield number, dict(zip(columns, values, strict=True))
                self.position = number
        except (DatasetsError, OSError, ValueError) as error:
            raise DataError(f"{self.name} cannot be read after row {number}: {error}") from error


def find_datasets(path: str) -> list[HuggingFaceSource]:
    """The splits of the dataset at `path`.

    Raises:
        MissingDependency: the `datasets` package is not installed.
        DataError: there is no such dataset.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency(
            "configs.type huggingface needs the package `datasets`: pip install 'rm-gallery[train]', or point "
            "configs.path at the dataset's files and set type to local"
        ) from error
    folder = Path(path).expanduser()
    saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
    if path.startswith(("~", ".", "/")) and not folder.exists():
        raise DataError(f"{folder} does not exist")
    try:
        if saved:
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if folder.exists() else path, streaming=True)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be loaded as a dataset: {error}") from error
    if not isinstance(found, dict):
        found = {"": found}
    return [
        HuggingFaceSource(
            name=f"{folder if saved else path}[{split}]" if split else str(folder),
            split=split_of(split),
            size=part.num_rows if saved else 0,
            dataset=part,
        )
        for split, part in found.items()
    ]
