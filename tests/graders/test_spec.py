"""The two snippets of the guide, "Integrate" and "Batch Evaluation", run as they are written there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rm_gallery.core.data.samples import Message, Sample
from rm_gallery.core.graders import NO_REASON, GraderScore
from rm_gallery.core.train.config import check_config
from tests.conftest import SHARED
from tests.examples.files import write
from tests.pages import run_notebook

GUIDE = SHARED / "spec/generative_pointwise.md"
FOLDER = "./checkpoints/rm-gallery-pointwise-final"


def snippet(heading: str) -> str:
    found = re.search(rf"^### {heading}.*?^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def run_guide(judge: Path, folder: Path) -> dict[str, Any]:
    """Both snippets, in this folder, with `judge` where they look for one; the names they leave."""
    if not GUIDE.is_file():
        pytest.skip("needs the guide in ../shared/spec, which is not part of the project")
    code = snippet("Integrate with RM-Gallery") + snippet("Batch Evaluation")
    assert FOLDER in code
    (folder / FOLDER).parent.mkdir()
    (folder / FOLDER).symlink_to(judge)
    with pytest.warns(UserWarning, match="was trained to judge helpfulness") as told:
        names = run_notebook(code, folder)
    assert len(told) == 2  # one for each grader
    result = names["result"]
    assert isinstance(result, GraderScore)
    assert 0 <= result.score <= 4
    assert result.reason == NO_REASON
    assert result.metadata["task"] == names["model"].task.name == "pointwise"

    [(name, given)] = names["results"].items()
    assert name == "helpfulness"
    assert [type(result) for result in given] == [GraderScore, GraderScore]
    alone = [names["grader"].evaluate(**item).score for item in names["dataset"]]
    assert [result.score for result in given] == pytest.approx(alone, abs=1e-5)
    names["model"].close()
    return names


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's newest checkpoint, as the quickstart trains one: supervised, then by GRPO; here one step of each."""
    from rm_gallery.core.train.local import train_local

    folder = tmp_path_factory.mktemp("trained")
    samples = [
        Sample((Message("user", f"q{i}"),), f"r{i}", {"helpfulness": i % 5}, f"s{i}") for i in range(8)
    ]
    data = {
        name: str(write(folder / f"{name}.jsonl", [s.to_row() for s in samples])) for name in ("train", "val")
    }
    start = tiny_model
    for method in ("sft", "grpo"):
        settings = {
            "task": "pointwise",
            "method": method,
            "model": {"path": str(start), "dtype": "float32"},
            "data": data,
            "train": {
                "batch_size": 2,
                "mini_batch_size": 2,
                "max_steps": 1,
                "eval_every": 1,
                "save_every": 1,
            },
            "rollout": {"n": 4, "max_response_length": 24},
        }
        start = train_local(check_config(settings), path=folder / method).run.path / "actor_latest"
    return start


def test_the_guides_snippets_run_as_written(trained, tmp_path, monkeypatch, capsys):
    """With the quickstart's own judge: tests/slow."""
    monkeypatch.chdir(tmp_path)
    result = run_guide(trained, tmp_path)["result"]
    assert capsys.readouterr().out == f"Score: {result.score}\nReason: {result.reason}\n"
