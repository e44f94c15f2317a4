"""`rmg eval RUN --every-checkpoint`: the same figures of each checkpoint, against its step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.evaluate.curve import checkpoints, evaluate_checkpoints
from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.core.tasks.saved import CARD, save_task
from tests.tiny import build_model

from .helpers import sample_row

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Path:
    """A run of the local engine with two checkpoints, which are other models than it started from."""
    folder = tmp_path / "run"
    for step in (2, 10):
        build_model(folder / f"checkpoint-{step}", seed=step)
        save_task(folder / f"checkpoint-{step}", "pointwise", PointwiseTask())
    (folder / "actor_latest").symlink_to("checkpoint-10")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"path": str(tiny_model)}}))
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "held_out.jsonl"
    file.write_text("".join(json.dumps(sample_row(i, i % 5)) + "\n" for i in range(6)))
    return file


def evaluated(run: Path, rows: Path, *more: str):
    words = ["eval", str(run), "--every-checkpoint", "--data", str(rows), "--mode", "expected", *more]
    return CliRunner().invoke(app, words)


def test_a_point_for_each_checkpoint_and_for_the_start(run, rows):
    done = evaluated(run, rows)
    assert done.exit_code == 0, done.output
    out = run / "eval" / "held_out-expected"
    points = json.loads((out / "curve.json").read_text())
    assert [point["step"] for point in points] == [0, 2, 10]
    for point in points:
        written = json.loads((out / f"step-{point['step']}" / "metrics.json").read_text())
        assert point["metrics"] == written["metrics"]
        assert point["headline"] == "reward"
    assert len({point["metrics"]["reward"]["value"] for point in points}) > 1, "they are different models"
    lines = [line.split()[0] for line in done.output.splitlines() if line.split()[:1]]
    assert [word for word in lines if word in ("0", "2", "10")] == ["0", "2", "10"]


def test_what_was_evaluated_is_not_evaluated_again(run, rows):
    evaluated(run, rows)
    folder = run / "eval" / "held_out-expected"
    shutil.rmtree(folder / "step-2")
    before = {step: (folder / f"step-{step}/metrics.json").stat().st_mtime_ns for step in (0, 10)}
    done = evaluated(run, rows)
    assert done.output.count("evaluated before") == 2
    assert (folder / "step-2" / "metrics.json").is_file()
    assert before == {step: (folder / f"step-{step}/metrics.json").stat().st_mtime_ns for step in (0, 10)}


def test_figures_that_were_made_otherwise_are_not_mixed(run, rows):
    evaluated(run, rows)
    done = evaluated(run, rows, "--limit", "3")
    assert "made with another limit: name another folder by --out" in str(done.exception)
    assert evaluated(run, rows, "--limit", "3", "--out", str(run / "eval" / "three")).exit_code == 0


def test_a_run_of_verl_has_its_checkpoints_elsewhere(tmp_path):
    for step in (20, 100):
        (tmp_path / f"global_step_{step}" / "actor").mkdir(parents=True)
        (tmp_path / f"global_step_{step}" / "actor" / CARD).write_text("{}")
    assert [step for step, _ in checkpoints(tmp_path)] == [20, 100]
    assert checkpoints(tmp_path)[0][1].name == "actor"


def test_what_was_removed_or_cut_off_is_no_checkpoint(tmp_path, run):
    """verl leaves `data.pt` where it removes a checkpoint, and a kill a folder without its card, which is written last."""
    (tmp_path / "verl" / "global_step_10").mkdir(parents=True)
    (tmp_path / "verl" / "global_step_10" / "data.pt").touch()
    assert checkpoints(tmp_path / "verl") == []
    (run / "checkpoint-10" / CARD).unlink()
    assert [step for step, _ in checkpoints(run)] == [0, 2]


def test_a_step_may_have_several_updates(run):
    """The local engine names its folders by updates, metrics.jsonl counts steps."""
    values = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(
        yaml.safe_dump({**values, "train": {"batch_size": 8, "mini_batch_size": 4}})
    )
    assert [step for step, _ in checkpoints(run)] == [0, 1, 5]


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_checkpoints_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"{name} keeps no checkpoint"):
        evaluate_checkpoints(tmp_path / name, tmp_path / "out", lambda *_: pytest.fail("asked"), {})
