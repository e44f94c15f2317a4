"""`rmg quickstart` with the real model, cut to two steps of each training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.graders.test_spec import run_guide

pytestmark = pytest.mark.slow
REPORTED = {"reward", "accuracy", "mae", "kappa", "parse_rate"}


@pytest.fixture(scope="module")
def quickstart(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(its folder, what it printed)."""
    out = tmp_path_factory.mktemp("quickstart") / "try #1"  # which YAML would cut at the hash
    out.mkdir()
    (out / ".quickstart").touch()
    (out / "model").symlink_to(smollm2)  # fetched already, for the other tests
    done = subprocess.run(
        [sys.executable, "-m", "rm_gallery", "quickstart", "--out", str(out), "--set", "train.max_steps=2"],
        capture_output=True,
        text=True,
        cwd=out.parent,  # nothing may depend on the checkout
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out, done.stdout


def test_the_quickstart_leaves_what_the_readme_says(quickstart):
    out, printed = quickstart
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert REPORTED <= set(summary["before"]) == set(summary["after"])
    assert {"majority", "best_constant", "prior", "length", "tfidf"} == set(summary["baselines"])
    for figures in (summary["after"], summary["baselines"]["best_constant"], summary["baselines"]["tfidf"]):
        assert {"value", "low", "high", "n"} <= set(figures["reward"])
    assert set(summary["difference_to_best_constant"]) >= {"value", "low", "high"}
    assert set(summary["seconds"]) == {"fetch", "convert", "before", "sft", "grpo", "after", "report"}
    assert 0 < summary["peak_memory_gib"] < 10
    assert summary["baselines"]["tfidf"]["kappa"]["value"] <= 0.4, "the words must not give the label away"
    assert summary["before"]["parse_rate"]["value"] < 0.5, "the untouched model does not keep to the format"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "before training" in page
    assert (out / "grpo" / "actor_latest" / "rm_gallery.json").is_file()
    for line in ("verdict", "best constant", "rmg judge --model"):
        assert line in printed.lower()


def test_the_guides_snippets_run_with_its_judge(quickstart, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_guide(quickstart[0] / "grpo" / "actor_latest", tmp_path)
