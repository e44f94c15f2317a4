"""The recipe of several dimensions, and one's own columns from the table to the report, by the command line."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from rm_gallery.cli import app
from rm_gallery.core.train import load_config
from tests.conftest import ROOT

RECIPE = ROOT / "examples/train/multi_dimension"
DIMENSIONS = ("helpfulness", "correctness", "style")


def test_the_recipe_names_what_its_data_has() -> None:
    config = load_config(RECIPE / "train.yaml")
    task = config.build_task()
    assert (task.name, config.method) == ("multi_dimension", "grpo")
    assert [part.name for part in task.parts] == ["helpfulness", "correctness", "coherence"]
    assert [round(3.5 * part.weight, 6) for part in task.parts] == [2, 1, 0.5]
    exported = yaml.safe_load((RECIPE / "data_config.yaml").read_text())["dataset"]
    assert config.data.train.name == f"{exported['name']}_train.parquet"
    [line] = [line for line in (RECIPE / "train.yaml").read_text().splitlines() if "--set model.path" in line]
    words = shlex.split(line.removeprefix("#"))
    assert words[:3] == ["rmg", "train", "examples/train/multi_dimension/train.yaml"]
    small = load_config(
        RECIPE / "train.yaml", [word for before, word in pairwise(words) if before == "--set"]
    )
    assert (small.method, small.train.max_steps) == ("sft", 10)


def test_real_rows_fit_the_recipe(shared_data: Path, tmp_path: Path) -> None:
    """HelpSteer2's labels, as the recipe's own data configuration exports them."""
    from rm_gallery.core.data.rows import load_rows
    from rm_gallery.core.train.rows import build_examples

    source = shared_data / "helpsteer2" / "validation.jsonl.gz"
    config = yaml.safe_load((RECIPE / "data_config.yaml").read_text())
    config["dataset"]["configs"]["path"] = str(source)
    config["dataset"]["export"]["output_dir"] = str(tmp_path)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(config))
    run("data", "convert", "--config", str(tmp_path / "data.yaml"))
    rows = [row for file in sorted(tmp_path.glob("*.parquet")) for row in load_rows(file)]
    examples = build_examples(load_config(RECIPE / "train.yaml").build_task(), rows)
    assert len(examples) == len(rows) > 500
    assert examples[0].truth == {name: rows[0][name] for name in ("helpfulness", "correctness", "coherence")}


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        app(list(words))
    assert not stopped.value.code, words


@pytest.mark.usefixtures("one_thread")
def test_from_a_table_of_ones_own_to_a_report(tiny_model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"What is {n}?,It is {n}.,{n % 5},{n % 5},{n % 3 + 1}" for n in range(24)]
    Path("own.csv").write_text("question,answer,helpful,right,style\n" + "\n".join(lines) + "\n")
    columns = {"prompt": "question", "response": "answer", "helpfulness": "helpful", "correctness": "right"}
    columns |= {"style": {"column": "style", "scale": [1, 3]}}
    data = {
        "name": "own",
        "configs": {"type": "local", "source": "columns_pointwise", "path": "own.csv", "columns": columns},
        "export": {"output_dir": "data", "split_ratio": {"train": 0.5, "test": 0.5}},
    }
    Path("data.yaml").write_text(yaml.safe_dump({"dataset": data}))
    run("data", "convert", "--config", "data.yaml")
    run("data", "describe", "data/own_train.parquet", "data/own_test.parquet")
    described = capsys.readouterr().out
    assert all(f"\n  {name} " in described for name in DIMENSIONS)
    train = {
        "task": "multi_dimension",
        "dimensions": {"helpfulness": 2, "correctness": 1, "style": {"weight": 1, "scale": [1, 3]}},
        "model": {"path": str(tiny_model), "dtype": "float32"},
        "prompt": {"instruction": "Rate."},
        "data": {"train": "data/own_train.parquet", "val": "data/own_test.parquet"},
        "train": {"batch_size": 2, "mini_batch_size": 2, "max_steps": 1, "eval_every": None},
        "rollout": {"n": 2, "max_response_length": 110},
    }
    Path("train.yaml").write_text(yaml.safe_dump(train))
    run("train", "train.yaml", "--set", "method=sft", "--out", "sft")
    run("train", "train.yaml", "--set", "model.path=sft/actor_latest", "--out", "grpo")
    logged = [json.loads(line) for line in Path("grpo/metrics.jsonl").read_text().splitlines()]
    assert {f"reward/{name}" for name in DIMENSIONS} < logged[1].keys()
    assert {f"mae/{name}" for name in DIMENSIONS} < logged[-1].keys()
    for mode, out in (("expected", "before"), ("greedy", "after")):
        words = ["--data", "data/own_test.parquet", "--train", "data/own_train.parquet", "--out", out]
        run("eval", "--model", "grpo/actor_latest", "--mode", mode, *words)
    metrics = json.loads(Path("before/metrics.json").read_text())
    for name in DIMENSIONS:
        assert metrics["metrics"][f"rps/{name}"]["low"] is not None
        assert f"mae/{name}" in metrics["baselines"]["best_constant"]
    run("report", "before", "after", "--out", "report.html")
    assert Path("report.html").read_text().count("Dimension by dimension") == 1
    capsys.readouterr()
    run("judge", "--model", "grpo/actor_latest", "--query", "What?", "--response", "That.", "--json")
    said = json.loads(capsys.readouterr().out)
    assert {name: len(p) for name, p in said["probabilities"].items()} == dict(
        zip(DIMENSIONS, (5, 5, 3), strict=True)
    )
    assert all(sum(p.values()) == pytest.approx(1) for p in said["probabilities"].values())
