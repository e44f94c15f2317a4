"""`rmg serve` on bad input: one sentence, before a model is loaded."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.errors import RMGalleryError
from rm_gallery.core.serve import Settings
from rm_gallery.core.serve.engine import Engine
from rm_gallery.core.serve.run import listen
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from rm_gallery.core.tasks.saved import save_task


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("RMG_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "vote"], "--mode is 'vote'"),
        (["--dtype", "int8"], "--dtype is 'int8'"),
        (["--host", "0.0.0.0"], "set RMG_API_KEY"),
        (["--task", "nothing", "--port", "0"], "task is 'nothing'"),
        (["--engine", "magic"], "--engine is 'magic'"),
        (["--port", "0"], "--task"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(tiny_model, arguments, said):
    result = CliRunner().invoke(app, ["serve", "--model", str(tiny_model), *arguments])
    assert isinstance(result.exception, RMGalleryError)
    assert said in str(result.exception)


def test_a_model_that_is_not_there(tmp_path):
    result = CliRunner().invoke(app, ["serve", "--model", str(tmp_path / "none"), "--port", "0"])
    assert isinstance(result.exception, RMGalleryError)
    assert "none" in str(result.exception)


def test_a_port_that_is_taken_is_said_before_the_model_is_looked_for(tmp_path):
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", "--model", str(tmp_path / "none"), "--port", port])
    assert f"port {port}" in str(result.exception)


def test_an_empty_key_is_no_key(tiny_model, monkeypatch):
    monkeypatch.setenv("RMG_API_KEY", " ")
    result = CliRunner().invoke(app, ["serve", "--model", str(tiny_model)])
    assert "API key is empty" in str(result.exception)


@pytest.mark.parametrize(
    ("more", "instruction"),
    [([], "Is it short?"), (["--task", "pointwise"], "Is it short?"), (["--task", "pairwise"], None)],
)
def test_a_saved_judge_is_asked_its_own_question_by_its_name(
    tiny_model, tmp_path, monkeypatch, more, instruction
):
    folder = shutil.copytree(tiny_model, tmp_path / "judge")
    save_task(folder, "pointwise", PointwiseTask(instruction="Is it short?"))
    served = []
    monkeypatch.setattr(
        "rm_gallery.core.serve.run.serve", lambda subject, task, *_, **__: served.append((subject, task))
    )
    result = CliRunner().invoke(app, ["serve", "--model", str(folder), "--port", "0", *more])
    assert result.exit_code == 0, result.exception
    [(subject, task)] = served
    engine = Engine(subject, task, Settings())
    assert engine.task.instruction == (instruction or PairwiseTask.default_instruction)


def test_the_help_has_an_example():
    result = CliRunner().invoke(app, ["serve", "--help"])
    assert result.exit_code == 0
    assert "Example:  rmg serve --model" in result.output
