"""`--task FILE.yaml`: the dimensions of a judge that carries none, said alike to `rmg eval`, `judge` and `serve`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.tasks import MultiDimensionTask, PointwiseTask
from rm_gallery.core.tasks.saved import save_task
from rm_gallery.core.train.config import check_config, load_task

pytestmark = pytest.mark.usefixtures("one_thread")

ASKED = {
    "task": "multi_dimension",
    "dimensions": {"truth": 3, "style": {"weight": 1, "scale": [1, 3], "description": "style, 1 to 3"}},
    "prompt": {"instruction": "Rate this."},
    "reward": {"name": "linear"},
}
ROW = {"input": [{"role": "user", "content": "Why?"}], "output": {"content": "So."}}


@pytest.fixture
def asked(tmp_path: Path) -> str:
    return written(tmp_path / "asked.yaml", ASKED)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    file = tmp_path / "rows.jsonl"
    lines = [{**ROW, "unique_id": str(i), "truth": i % 5, "style": i % 3 + 1} for i in range(6)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def written(file: Path, values: object) -> str:
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(file)


def run(*words: str):
    done = CliRunner().invoke(app, list(words))
    if isinstance(done.exception, ConfigError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    return done


@pytest.mark.parametrize("reasons", [False, True])
@pytest.mark.parametrize("think", [False, True])
def test_a_training_yaml_asks_what_its_training_asks(tmp_path, think, reasons):
    given = {
        **ASKED,
        "prompt": {**ASKED["prompt"], "think": think},
        "model": {"path": "m", "reasoning_model": reasons},
        "data": {"train": "t.parquet"},
    }
    trained, found = check_config(given).build_task(), load_task(written(tmp_path / "train.yaml", given))
    assert found.prompt(ROW) == trained.prompt(ROW)
    assert (found.settings, found.parts[0].weight, found.think) == (trained.settings, 0.75, trained.think)
    assert found.reward_config == trained.reward_config


def test_rmg_eval_is_told_the_dimensions_of_an_untouched_model(tiny_model, asked, rows, tmp_path):
    out = tmp_path / "out"
    run(
        "eval",
        "--model",
        str(tiny_model),
        "--data",
        rows,
        "--task",
        asked,
        "--mode",
        "expected",
        "--out",
        str(out),
    )
    found = json.loads((out / "metrics.json").read_text())["metrics"]
    assert found["mae"]["value"] == pytest.approx(
        0.75 * found["mae/truth"]["value"] + 0.25 * found["mae/style"]["value"]
    )


def test_every_step_of_a_curve_is_asked_what_the_run_trained_on(tiny_model, rows, tmp_path):
    """The model it started from carries no task of its own."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_model, folder / "checkpoint-1")
    save_task(folder / "checkpoint-1", "multi_dimension", MultiDimensionTask(dimensions=ASKED["dimensions"]))
    written(folder / "config.yaml", {**ASKED, "model": {"path": str(tiny_model)}, "data": {"train": rows}})
    run(
        "eval",
        str(folder),
        "--every-checkpoint",
        "--data",
        rows,
        "--mode",
        "expected",
        "--out",
        str(tmp_path / "c"),
    )
    points = json.loads((tmp_path / "c" / "curve.json").read_text())
    assert [(point["step"], "mae/style" in point["metrics"]) for point in points] == [(0, True), (1, True)]


def test_rmg_judge_is_told_too(tiny_model, asked):
    words = ["judge", "--model", str(tiny_model), "--query", "q", "--response", "r", "--json"]
    said = json.loads(run(*words, "--task", asked).output)
    assert {name: list(p) for name, p in said["probabilities"].items()} == {
        "truth": list("01234"),
        "style": list("123"),
    }
    with pytest.raises(ConfigError, match="multi_dimension judge: give it one response"):
        run(*words, "--response-b", "s", "--task", asked)


def test_rmg_serve_is_told_too(tiny_model, asked, tmp_path, monkeypatch):
    """Also where the folder carries a task of its own."""
    monkeypatch.delenv("RMG_API_KEY", raising=False)
    served = []
    monkeypatch.setattr("rm_gallery.core.serve.run.serve", lambda _, task, *__, **___: served.append(task))
    saved = shutil.copytree(tiny_model, tmp_path / "judge")
    save_task(saved, "pointwise", PointwiseTask())
    for folder in (tiny_model, saved):
        run("serve", "--model", str(folder), "--port", "0", "--task", asked)
    assert [task.dimensions for task in served] == [("truth", "style")] * 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"task": "multi_dimension", "dimension": {"truth": 1}},
            "dimension is not a known key.*'dimensions'",
        ),
        ({"task": "pointwise", "dimensions": {"truth": 1}}, "the task pointwise has no dimensions"),
        ({"task": "multi_dimension", "dimensions": {}}, "dimensions names none"),
        ([], "expected keys such as task and dimensions, found list"),
    ],
)
def test_what_cannot_be_asked_is_said_before_a_model_is_looked_for(tmp_path, values, said):
    file = written(tmp_path / "asked.yaml", values)
    with pytest.raises(ConfigError, match=said):
        run("judge", "--model", str(tmp_path / "none"), "--query", "q", "--response", "r", "--task", file)
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load_task(tmp_path / "nothing.yaml")
