"""Where the tests find things."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where it is absent."""
    path = SHARED / "data"
    if not path.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not part of the project")
    return path
