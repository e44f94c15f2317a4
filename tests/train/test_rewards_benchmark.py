"""benchmarks/rewards.py, run from end to end."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from tests.conftest import ROOT
from tests.train.exact_parts import write_rule

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_from_end_to_end(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    rewards = importlib.import_module("rewards")
    train, val = write_rule(tmp_path / "train.jsonl", 40), write_rule(tmp_path / "val.jsonl", 8, start=100)
    out = tmp_path / "rewards.json"
    asked = (
        f"--steps 2 --seeds 3 4 --batch-size 2 --grid 1e-3 1e-2 --tune-prompts 1 --tune-seeds 1 --instruction Rate. --dtype float32 \
        --model {tiny_model} --train {train} --val {val} --work {tmp_path / 'work'} --out {out}"
    )
    monkeypatch.setattr(sys, "argv", ["rewards.py", *asked.split()])
    rewards.main()
    found = json.loads(out.read_text())
    assert found["rows"] == {"train": 30, "tune": 10, "val": 8}
    assert list(found["rewards"]) == ["exp_decay", "rps", "log_score"]
    for each in found["rewards"].values():
        assert set(each["runs"]) == {"3", "4"}
        assert each["learning_rate"]["chosen"] in (1e-3, 1e-2)
        for run in each["runs"].values():
            assert 0 <= run["mass"] <= 1
            assert 0 <= run["rps"] <= 1
            assert run["seconds"] > 0
    # of a model that writes no verdict yet, the expected reward moves nothing, and the log score does
    moved = {
        name: each["runs"]["3"]["rps"] - found["start"]["rps"] for name, each in found["rewards"].items()
    }
    assert abs(moved["log_score"]) > 1e-3 > abs(moved["exp_decay"])
    assert found["baselines"]["prior"]["rps"] > 0
    assert "mass" not in found["baselines"]["prior"], "it writes nothing"
    assert "ece" not in found["baselines"]["majority"], "certain of one verdict: no distribution is said"
    assert str(tmp_path) not in out.read_text(), "no path of the machine"
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("exp_decay", "prior", "start", "kappa"))
