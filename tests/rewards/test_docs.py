"""docs/as_reward.md: its blocks run, with real training, a real judge and a real service."""

from __future__ import annotations

import re
import shutil

import pytest

from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.core.tasks.saved import save_task
from tests.conftest import ROOT
from tests.pages import blocks, run_notebook
from tests.service import serving
from tests.tiny import build_model

PAGE = "as_reward.md"


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    made = tmp_path_factory.mktemp("page")
    judge = shutil.copytree(tiny_model, made / "runs" / "judge" / "actor_latest")
    save_task(judge, "pointwise", PointwiseTask())
    build_model(made / "models" / "small", seed=1)
    return made


def test_the_blocks_run(folder, monkeypatch, one_thread, capsys):
    monkeypatch.chdir(folder)
    training, client = blocks(PAGE)
    names = run_notebook(training, folder)
    history = [line for line in names["trainer"].state.log_history if "judge/missing" in line]
    assert len(history) >= 1
    assert names["trainer"].state.global_step == 5
    capsys.readouterr()
    with serving(folder / "runs" / "judge" / "actor_latest") as service:
        run_notebook(client.replace("http://127.0.0.1:8000", service.url), folder)
    score, problem = capsys.readouterr().out.rstrip("\n").split(" ", 1)
    assert 0 <= float(score) <= 4
    assert problem == ""


def test_verls_settings_are_those_of_the_module():
    """Which a test with real verl takes from the example."""

    def settings(path):
        found = re.findall(r"^\+?reward\.\S+=\S+$", path.read_text(encoding="utf-8"), re.MULTILINE)
        return [line.replace("HOST", "127.0.0.1") for line in found]

    assert settings(ROOT / "docs" / PAGE) == settings(ROOT / "rm_gallery/core/rewards/verl.py")
    assert settings(ROOT / "docs" / PAGE)[1:] == settings(ROOT / "examples/reward/verl_reward.py")[1:]
