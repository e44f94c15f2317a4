"""Writing small sources, and converting them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from rm_gallery.core.data import ConversionReport, DatasetConfig, convert_dataset


def rating(prompt: str, response: str = "An answer.", helpfulness: Any = 3, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness, **more}


def ratings(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [rating(f"Question {n}?", f"Answer {n}.", n % 5) for n in range(start, start + count)]


def write_lines(path: Path, rows: list[Any]) -> Path:
    """JSON Lines, gzipped where the name says so; a `str` stands for itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def settings(path: Path, out: Path, source: str = "helpsteer2_pointwise", **sections: Any) -> DatasetConfig:
    return DatasetConfig.model_validate(
        {
            "name": "data",
            "configs": {"source": source, "path": str(path), **sections.get("configs", {})},
            "process": sections.get("process", {}),
            "export": {"output_dir": str(out), **sections.get("export", {})},
        }
    )


def convert(path: Path, out: Path, source: str = "helpsteer2_pointwise", **sections: Any) -> ConversionReport:
    return convert_dataset(settings(path, out, source, **sections))


def exported(out: Path, split: str, name: str = "data") -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(out / f"{name}_{split}.parquet").to_pylist()


def every(out: Path) -> list[dict[str, Any]]:
    return [row for split in ("train", "test") for row in exported(out, split)]
