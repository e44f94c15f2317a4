"""Code that a judge's card names runs where it is one's own, and not because it lay beside the weights."""

from __future__ import annotations

import json
import sys

import pytest

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.subject import Candidate
from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.core.tasks.saved import CARD, load_saved_task, save_task

CODE = """
from pathlib import Path
from rm_gallery.core.tasks import PointwiseTask

Path("ran").touch()


class Own(PointwiseTask):
    pass


def reward(predicted, true):
    return 1.0
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def with_card(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    save_task(folder, "pointwise", PointwiseTask())
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "judge/evil.py:Own"},
        {"reward": {"name": "judge/evil.py:reward"}},
        {"task": "judge.evil:Own"},
    ],
    ids=["task", "reward", "module"],
)
@pytest.mark.parametrize("inside", ["", "weights"], ids=["in its folder", "in its checkout"])
def test_code_that_came_with_a_judge_is_not_run(here, monkeypatch, changes, inside):
    monkeypatch.syspath_prepend(str(here))
    for name in ("judge", "judge.evil"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (here / "judge").mkdir()
    (here / "judge/evil.py").write_text(CODE)
    if inside:
        (here / "judge/.git").mkdir()
    folder = with_card(here / "judge" / inside, **changes)
    with pytest.raises(
        ConfigError, match=r"code that came with it: to run that, trust it \(--trust-remote-code\)"
    ):
        Candidate(str(folder)).saved  # noqa: B018 - a property that reads the card
    assert not (here / "ran").exists()
    assert load_saved_task(folder, trust_remote_code=True) is not None
    assert (here / "ran").exists()


@pytest.mark.parametrize("versioned", [True, False])
def test_ones_own_code_runs_for_ones_own_run(here, versioned):
    (here / "own.py").write_text(CODE)
    if versioned:
        (here / ".git").mkdir()
    folder = with_card(here / "runs" / "one", task=f"{here}/own.py:Own")
    saved = load_saved_task(folder)
    assert saved is not None
    assert type(saved.task).__name__ == "Own"


def test_what_the_package_holds_needs_no_trust(here):
    folder = with_card(here / "judge", task="rm_gallery.core.tasks:PairwiseTask")
    saved = load_saved_task(folder)
    assert saved is not None
    assert saved.task.responses == 2
