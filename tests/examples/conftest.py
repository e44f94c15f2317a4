"""Exported files of ratings and of pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rm_gallery.core.data.samples import Message
from tests.examples.files import write
from tests.tasks.rows import pair, sample


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    rows = [
        sample(
            input=(Message("user", "word " * n),), labels={"helpfulness": n % 5}, unique_id=f"r{n}"
        ).to_row()
        for n in range(1, 11)
    ]
    return write(tmp_path / "ratings.parquet", rows)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.parquet", [pair().to_row(), pair(unique_id="p2").swap().to_row()])
