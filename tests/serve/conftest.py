"""The service of the tiny model, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Running, serving


@pytest.fixture(scope="session")
def pointwise(tiny_model: Path) -> Iterator[Running]:
    """A judge that scores one response."""
    with serving(tiny_model, "pointwise") as running:
        yield running


@pytest.fixture(scope="session")
def pairwise(tiny_model: Path) -> Iterator[Running]:
    """A judge that compares two."""
    with serving(tiny_model, "pairwise") as running:
        yield running
