"""benchmarks/exact.py: what it calls reached, what it calls noise, and a run of it from end to end."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

import numpy as np
import pytest

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.core.train.config import check_config
from tests.conftest import ROOT
from tests.train.exact_parts import write_rule

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    exact = importlib.import_module("exact")
    figures = importlib.import_module("exact_figures")
    runs = importlib.import_module("exact_runs")
    start = importlib.import_module("start")

pytestmark = pytest.mark.usefixtures("one_thread")


def points(*rewards: float, each: float = 1.0) -> list[dict[str, float]]:
    return [{"step": i, "seconds": i * each, "reward": reward} for i, reward in enumerate(rewards)]


@pytest.mark.parametrize(
    ("rewards", "step"),
    [
        ((0.1, 0.5, 0.6), 1),
        ((0.1, 0.6, 0.4, 0.5), 3),  # the first crossing was lost again
        ((0.1, 0.6, 0.4), None),
        ((0.5, 0.5), 0),
    ],
)
def test_reached_is_from_when_on_it_holds(rewards, step):
    found = figures.held_from(points(*rewards), 0.5)
    assert (found and found["step"]) == step


def test_the_share_is_of_the_mean_curves_and_only_beside_a_gain():
    runs = {
        "grpo": {"0": points(0.1, 0.3, 0.5, each=10), "1": points(0.1, 0.5, 0.7, each=10)},
        "exact": {"0": points(0.1, 0.5, 0.8), "1": points(0.1, 0.6, 0.7)},
    }
    gain = {"interval": [0.1, 0.5]}
    found = figures.compare(runs, gain)
    assert found["mean"]["grpo_reward"] == pytest.approx(0.6)
    assert found["claim"] == found["mean"]["held"]["share"] == pytest.approx(2 / 20)
    assert [each["reached"]["share"] for each in found["by_seed"].values()] == pytest.approx([1 / 20, 2 / 20])
    assert figures.compare(runs, {"interval": [-0.1, 0.5]})["claim"] is None
    for curve in runs["exact"].values():
        curve += points(0, 0, 0, 0.2)[-1:]
    lost = figures.compare(runs, gain)
    assert lost["claim"] == found["claim"], "it was there"
    assert lost["mean"]["held"] is None, "and that it was lost again is said"
    runs["exact"] = {seed: points(0.1, 0.5) for seed in runs["exact"]}
    assert figures.compare(runs, gain)["why"] == "exact never has it"


def test_the_interval_is_wide_where_few_prompts_decide():
    """A hundred rows of one prompt are one observation."""
    gains = np.tile(np.repeat([0.5, -0.1], 100), (3, 1))
    low, high = figures.interval(gains, ["a"] * 100 + ["b"] * 100)
    assert (low, high) == pytest.approx((-0.1, 0.5))
    low, high = figures.interval(gains, [str(i) for i in range(200)])
    assert 0.1 < low < 0.2 < high < 0.3


def test_prompts_to_choose_by_are_not_trained_on(tmp_path):
    rows, task = load_rows(write_rule(tmp_path / "rows.jsonl", 40)), PointwiseTask()
    kept, apart = runs.split(rows, task, 1)
    assert {task.cluster(row) for row in kept}.isdisjoint({task.cluster(row) for row in apart})
    assert len(kept) + len(apart) == 40
    with pytest.raises(SystemExit, match="lower --tune-prompts"):
        runs.split(rows, task, 4)


def test_a_rate_is_chosen_by_its_last_reward_or_by_what_comes_early(monkeypatch, tmp_path):
    """The smaller rate ends higher, the larger is there first."""
    curves = {1e-5: points(0.2, 0.3, 0.7), 1e-4: points(0.2, 0.6, 0.6)}
    monkeypatch.setattr(runs, "settings_of", lambda _, rate, *__: rate)
    monkeypatch.setattr(runs, "trained", lambda _, rate, *__: rate)
    monkeypatch.setattr(runs, "curve", curves.__getitem__)
    arguments = argparse.Namespace(grid=[1e-4, 1e-5], tune_seeds=2, work=tmp_path)
    assert runs.tune("grpo", {}, arguments)["chosen"] == 1e-5
    assert runs.tune("exact", {}, arguments, early=True)["chosen"] == 1e-4


def test_labels_by_name_take_the_tasks_place():
    asked = argparse.Namespace(task="pointwise", dimensions=["verbosity"])
    config = {
        **runs.task_of(asked),
        "method": "exact",
        "model": {"path": "m"},
        "data": {"train": "rows.jsonl"},
    }
    assert check_config(config).build_task().dimensions == ("verbosity",)
    assert runs.task_of(argparse.Namespace(task="pairwise", dimensions=None)) == {"task": "pairwise"}


def test_a_start_is_the_first_step_whose_answers_can_be_read():
    rates = {0: 1.0, 3: 0.95, 1: 0.2, 2: 0.9, 4: 0.4}
    records = [{"split": "val", "step": step, "parse_rate": rate} for step, rate in rates.items()]
    records.append({"split": "train", "step": 1, "parse_rate": 1.0})
    assert start.first_that_parses(records, 0.9)["step"] == 2
    assert start.first_that_parses(records, 0.99) is None, "what was there before the first step is no start"


def test_rates_are_chosen_by_runs_at_once_as_one_after_another(tiny_model, tmp_path, monkeypatch):
    """In processes of their own, which find the module where a script's are; what they leave is taken for done."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    files = {"train": write_rule(tmp_path / "train.jsonl", 8), "val": write_rule(tmp_path / "val.jsonl", 4)}
    arguments = argparse.Namespace(
        **{"model": str(tiny_model), "work": tmp_path, "jobs": 2, "grid": [1e-3, 1e-2], "tune_seeds": 1},
        **{
            "task": "pointwise",
            "dimensions": None,
            "dtype": "float32",
            "instruction": "Rate.",
            "max_prompt_length": 1024,
        },
        **{"shuffle": "rows", "batch_size": 2, "micro_batch_size": None, "steps": 1, "exact_steps": None},
        **{"exact_eval_every": 1, "grpo_eval_every": 1, "samples": 2, "max_response_length": 4},
        **{"reward": "auto", "kl_coef": 0.001, "advantage": "group_std", "eval_batch_size": 4},
    )
    runs.train_at_once(["exact"], files, arguments)
    left = {path: path.stat().st_mtime_ns for path in tmp_path.glob("tune-exact-*/finished.json")}
    assert len(left) == 2
    at_once = runs.tune("exact", files, arguments)
    assert {path: path.stat().st_mtime_ns for path in left} == left, "not trained again"
    arguments.work = tmp_path / "alone"
    assert runs.tune("exact", files, arguments) == at_once


def test_a_run_is_made_anew_for_other_rows_that_it_is_judged_by_later(tiny_model, tmp_path, monkeypatch):
    """Its training names only the first file (as of rewards.py); what it was judged by goes with the folder."""
    settings = {"task": "pointwise", "method": "exact", "model": {"path": str(tiny_model)}}
    files = {"train": write_rule(tmp_path / "train.jsonl", 8), "val": write_rule(tmp_path / "val.jsonl", 4)}
    config = check_config({**settings, "data": {"train": str(files["train"])}})
    monkeypatch.setattr(runs, "train_local", lambda _, *, path, **__: path.mkdir(parents=True))
    for _ in range(2):
        folder = runs.trained("run", config, tmp_path, files)
        assert runs.once(folder / "figures.json", len, "old") == 3
    write_rule(files["val"], 4, start=50)
    assert runs.once(runs.trained("run", config, tmp_path, files) / "figures.json", len, "newer") == 5


def test_a_run_from_end_to_end(tiny_model, tmp_path, monkeypatch, capsys):
    train, val = write_rule(tmp_path / "train.jsonl", 40), write_rule(tmp_path / "val.jsonl", 8, start=100)
    files = ["--model", str(tiny_model), "--train", str(train), "--val", str(val)]
    small = [
        "--steps",
        "2",
        "--seeds",
        "3",
        "--batch-size",
        "2",
        "--samples",
        "2",
        "--max-response-length",
        "4",
    ]
    more = [
        "--grid",
        "1e-3",
        "1e-2",
        "--tune-prompts",
        "1",
        "--tune-seeds",
        "2",
        "--instruction",
        "Rate.",
        "--dtype",
        "float32",
    ]
    out = tmp_path / "exact.json"
    places = ["--work", str(tmp_path / "work"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["exact.py", *files, *small, *more, *places])
    exact.main()
    found = json.loads(out.read_text())
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert found["rows"] == {"train": 30, "tune": 10, "val": 8, "val_prompts": 4}
    for method in exact.METHODS:
        assert found["learning_rate"][method]["chosen"] == 1e-3, "all earn the same: the smallest"
        steps = [point["step"] for point in found["runs"][method]["3"]]
        assert steps == {"grpo": [0, 2], "exact": [0, 1, 2]}[method]
        assert found["runs"][method]["3"][-1]["seconds"] > 0
    assert found["comparison"]["why"] == "GRPO's own gain is within noise"
    assert str(tmp_path) not in out.read_text(), "no path of the machine"
    before = (tmp_path / "work" / "exact-3" / "metrics.jsonl").read_bytes()
    exact.main()
    assert (tmp_path / "work" / "exact-3" / "metrics.jsonl").read_bytes() == before, "not trained again"
    printed = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["exact.py", "--table", "--out", str(out)])
    exact.main()
    assert capsys.readouterr().out in printed, "the table is that of the results"
    write_rule(train, 40, start=200)
    monkeypatch.setattr(sys, "argv", ["exact.py", *files, *small, *more, *places])
    monkeypatch.setattr(exact, "tune", lambda *_, **__: {"chosen": 1e-3})
    monkeypatch.setattr(exact, "show", lambda _: None)
    exact.main()
    assert (tmp_path / "work" / "exact-3" / "metrics.jsonl").read_bytes() != before, "of other rows"
