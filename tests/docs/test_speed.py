"""docs/speed.md shows what the benchmarks measured: its tables are those that they print of the committed results."""

from __future__ import annotations

import importlib
import json

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "results"),
    [
        ("judge", "judge"),
        ("judge", "judge_float32"),
        ("train_step_report", "train_step"),
        ("train_step_report", "train_step_memory"),
        ("train_step_report", "train_step_float32"),
        ("train_step_report", "train_step_verl"),
    ],
)
def test_the_tables_are_those_of_the_results(monkeypatch, capsys, module, results):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = json.loads((ROOT / "benchmarks" / "results" / f"{results}.json").read_text(encoding="utf-8"))
    importlib.import_module(module).show(found)
    for block in capsys.readouterr().out.strip().split("\n\n"):
        assert f"{block.strip()}\n" in PAGE
