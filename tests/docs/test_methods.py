"""benchmarks/methods.py: the same rows for every method, figures that are not mixed, and a run of it from end to end."""

from __future__ import annotations

import importlib
import json
import re

import pytest

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.evaluate.benchmarks import get_benchmark
from rm_gallery.core.train.config import check_config
from tests.conftest import ROOT
from tests.tiny import build_encoder

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    methods = importlib.import_module("methods")

PAGE = (ROOT / "docs" / "building_rm" / "overview.md").read_text(encoding="utf-8")


@pytest.fixture
def data(tmp_path):
    """Sixteen prompts to train on and six held out, two responses each; the longest has 40 words."""
    folder = tmp_path / "HelpSteer2"
    folder.mkdir()
    rated = {"correctness": 1, "coherence": 1, "complexity": 1, "verbosity": 1}
    for part, number in (("train", 16), ("validation", 6)):
        rows = [
            {
                "prompt": f"{part} {i}",
                "response": "word " * (1 + k + i % 2 + 36 * (i == 0)),
                "helpfulness": (3 * k + i) % 4 if i % 3 else 2,
                **rated,
            }
            for i in range(number)
            for k in range(2)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_every_method_learns_from_the_same_judgments(data, tmp_path):
    found = methods.prepare(data, tmp_path / "work", 8, 30)
    ratings, pairs = (load_rows(tmp_path / "work" / f"{name}.jsonl") for name in ("ratings", "pairs"))
    assert found["train_prompts"] == 8
    assert len(ratings) == len(pairs) == 16  # two responses a prompt; both orders
    by_prompt: dict = {}
    for row in ratings:
        by_prompt.setdefault(row["input"][0]["content"], []).append(row)
    for row in pairs:
        own = {r["output"]["content"]: r["helpfulness"] for r in by_prompt[row["input"][0]["content"]]}
        a, b = (own[response["content"]] for response in row["output"])
        assert row["preferred"] == ("A" if a > b else "B" if b > a else "tie")
        assert row["preference_strength"] == max(-3, min(3, b - a))
    assert found["train_untied"] == sum(row["preferred"] == "A" for row in pairs)


def test_the_held_out_pairs_are_all_there_and_long_ones_are_marked(data, tmp_path):
    found = methods.prepare(data, tmp_path / "work", 8, 30)
    items = get_benchmark("jsonl").load(tmp_path / "work" / "heldout.jsonl")
    assert len(items) == found["held_out_pairs"] == 6
    assert [item.tags["length"] for item in items].count("long") == 1
    prompts = {row["input"][0]["content"] for row in load_rows(tmp_path / "work" / "ratings.jsonl")}
    assert prompts.isdisjoint(item.input[-1].content for item in items)


def test_the_same_rows_are_drawn_again_and_a_smaller_draw_is_part_of_a_larger(data, tmp_path):
    first, again, fewer = (
        methods.prepare(data, tmp_path / n, k, 60) for n, k in (("a", 9), ("b", 9), ("c", 4))
    )
    assert first == again
    a, c = ((tmp_path / name / "ratings.jsonl").read_text() for name in ("a", "c"))
    assert a.startswith(c)
    assert fewer["train_prompts"] == 4


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_configurations_are_legal(name, tmp_path):
    for prompts, untied in ((7, 5), (300, 201)):
        data = {"train_prompts": prompts, "train_untied": untied}
        config = check_config(methods.settings_of(methods.METHODS[name], tmp_path, "m", data))
        config.build_task()
        # ties are dropped by Bradley-Terry, and what is left has to fill a batch
        assert config.train.batch_size <= (untied if config.method == "bradley_terry" else prompts)


def test_figures_of_other_rows_are_not_mixed(tmp_path):
    fixed = {"data": {"limit": 8}, "threads": 1, "models": {}}
    path = tmp_path / "methods.json"
    methods.write_results(path, {**fixed, "methods": {"sft": {}}})
    assert "sft" in methods.open_results(path, fixed)["methods"]
    with pytest.raises(SystemExit, match="made with another threads"):
        methods.open_results(path, {**fixed, "threads": 2})


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no train\.jsonl"):
        methods.prepare(tmp_path, tmp_path / "work", 8, 30)


def test_the_table_of_the_page_is_that_of_the_results():
    """Until it was measured, the page says so."""
    shown = re.search(r"<!-- methods -->\n\n(.*?)\n\n<!-- /methods -->", PAGE, re.DOTALL)[1]
    if methods.RESULTS.is_file():
        assert shown == methods.to_table(
            json.loads(methods.RESULTS.read_text(encoding="utf-8")), methods.METHODS
        )
    else:
        assert shown == "Not measured yet."


@pytest.mark.slow
def test_it_measures_and_measures_nothing_twice(data, tmp_path, tiny_model, capsys):
    encoder = build_encoder(tmp_path / "encoder", positions=1024)
    out = tmp_path / "methods.json"
    arguments = ["--data", str(data), "--out", str(out), "--work", str(tmp_path / "work"), "--limit", "8"]
    arguments += ["--encoder", str(encoder), "--decoder", str(tiny_model)]
    # GRPO before what it goes on from is said, and does not stop the others
    assert methods.main([*arguments, "--methods", "grpo", "bt_encoder"]) == 1
    assert "measure sft first" in capsys.readouterr().err
    assert methods.main([*arguments, "--methods", "sft", "bt_encoder", "grpo"]) == 0
    said = capsys.readouterr()
    assert "bt_encoder: measured already" in said.err
    results = json.loads(out.read_text())
    assert list(results["methods"]) == ["bt_encoder", "sft", "grpo"]
    for found in results["methods"].values():
        assert found["steps"] > 0
        assert found["train"]["seconds"] > 1
        assert 0.1 < found["train"]["peak_gib"] < 8
        assert found["figures"]["accuracy"]["n"] == results["data"]["held_out_untied"]
        # the trivial predictors answer the same pairs whatever the method
        assert (
            found["baselines"]["longer"]["figures"]
            == results["methods"]["sft"]["baselines"]["longer"]["figures"]
        )
    assert said.out.count("\n") == 2 + 3 + 3
