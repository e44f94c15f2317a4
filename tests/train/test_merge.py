"""`rmg merge`: adapters become one whole model; what cannot be merged is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.weights import load_model
from rm_gallery.core.tasks import get_task
from rm_gallery.core.tasks.saved import CARD, load_saved_task, save_task
from rm_gallery.core.train import merge
from rm_gallery.core.train.merge import merge_checkpoint
from tests.tiny import build_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def adapters(tiny_model: Path, tmp_path: Path) -> Path:
    """A checkpoint as the local engine leaves one: adapters that change the answers, tokenizer, card."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(
        load_model(tiny_model),
        LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False),
    )
    folder = tmp_path / "run" / "checkpoint-4"
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    save_task(folder, "pairwise", get_task("pairwise"), max_response_length=16)
    return folder


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(20)[None]).logits


def test_the_merged_model_is_the_base_with_its_adapters(adapters: Path, tiny_model: Path, tmp_path: Path):
    from peft import PeftModel

    merged = merge_checkpoint(adapters, tmp_path / "merged")
    expected = logits(PeftModel.from_pretrained(load_model(tiny_model), str(adapters)).eval())
    torch.testing.assert_close(logits(load_model(merged)), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, logits(load_model(tiny_model)), atol=1e-3), (
        "the adapters do something"
    )
    assert not (merged / "adapter_config.json").exists()
    assert (merged / "config.json").is_file()
    assert (merged / "generation_config.json").is_file()


def test_the_judge_comes_with_its_task_and_a_model_card(adapters: Path, tmp_path: Path):
    merged = merge_checkpoint(adapters, tmp_path / "merged")
    saved = load_saved_task(merged)
    assert saved is not None
    assert (saved.task.name, saved.max_response_length) == ("pairwise", 16)
    card = (merged / "README.md").read_text()
    assert "pairwise" in card
    assert "checkpoint-4" in card


def test_a_folder_in_use_is_left_alone(adapters: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        merge_checkpoint(adapters, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_failed_merge_leaves_nothing(adapters: Path, tmp_path: Path):
    values = json.loads((adapters / "adapter_config.json").read_text())
    (adapters / "adapter_config.json").write_text(
        json.dumps({**values, "base_model_name_or_path": "models/gone"})
    )
    with pytest.raises(ConfigError, match="gone"):
        merge_checkpoint(adapters, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no folder"),
        (lambda folder: folder.mkdir(), "holds neither shards"),
        (
            lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{}")),
            "one whole model already",
        ),
    ],
    ids=["absent", "empty", "whole"],
)
def test_what_is_no_checkpoint_is_named(make, message, tmp_path: Path):
    folder = tmp_path / "given"
    make(folder)
    with pytest.raises(ConfigError, match=message):
        merge_checkpoint(folder, tmp_path / "out")


def test_adapters_without_their_scale_are_refused(adapters: Path, tmp_path: Path):
    """verl's merger writes an alpha of 0 where it finds none, which would switch the adapters off in silence."""
    values = json.loads((adapters / "adapter_config.json").read_text())
    (adapters / "adapter_config.json").write_text(json.dumps({**values, "lora_alpha": 0}))
    with pytest.raises(ConfigError, match="lora_alpha"):
        merge_checkpoint(adapters, tmp_path / "merged")


def test_the_card_may_lie_beside_the_checkpoint(adapters: Path, tmp_path: Path):
    """In a run of verl it lies in the run's folder, two above the shards."""
    card = adapters / CARD
    actor = adapters.parent / "global_step_4" / "actor"
    actor.parent.mkdir()
    adapters.rename(actor)
    (actor / CARD).rename(adapters.parent / CARD)
    assert not card.exists()
    assert (
        load_saved_task(merge_checkpoint(adapters.parent / "global_step_4", tmp_path / "merged")) is not None
    )


def test_a_merger_that_is_killed_in_silence_is_reported(tmp_path: Path, monkeypatch):
    folder = tmp_path / "actor"
    folder.mkdir()
    (folder / merge.SHARDS).write_text("{}")
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexit 137\n")
    silent.chmod(0o755)
    monkeypatch.setattr(merge.sys, "executable", str(silent))
    monkeypatch.setattr("rm_gallery.core.models.require.require", lambda *_: None)
    with pytest.raises(ConfigError, match="exit status 137"):
        merge_checkpoint(folder, tmp_path / "out")
