"""Regression on several attributes: the loss over the labels that are there, what it learns, and its folder in use."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate.model import evaluate_data
from rm_gallery.core.judge.scalar import ScalarJudge
from rm_gallery.core.judge.subject import Candidate
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import check_rows, train_local
from rm_gallery.core.train.local.regression import MISSING, masked_mse
from tests.tiny import build_encoder
from tests.train.scalar_runs import assert_resumes, piped, records, write_ratings

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = {"helpfulness": 1.0, "verbosity": -0.25}


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    return {
        "method": "regression",
        "model": {"path": str(tiny_model), "dtype": "float32"},
        "data": {
            "train": str(write_ratings(tmp_path / "train.jsonl", 60)),
            "val": str(write_ratings(tmp_path / "val.jsonl", 20, start=100)),
        },
        "train": {
            "batch_size": 8,
            "mini_batch_size": 4,
            "max_steps": 30,
            "learning_rate": 1e-2,
            "eval_every": 10,
            "save_every": 10,
        },
        "regression": {"attributes": dict(WEIGHTS)},
        "output_dir": str(tmp_path / "runs"),
    }


@pytest.fixture
def made(
    settings: dict[str, Any], tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> dict[str, Any]:
    """The settings for a decoder or an encoder."""
    if request.param == "encoder":
        settings["model"]["path"] = str(build_encoder(tmp_path / "encoder"))
    return settings


both = pytest.mark.parametrize("made", ["decoder", "encoder"], indirect=True)


def conversations(file: str | Path) -> list[list[dict[str, str]]]:
    return [
        [*row["input"], {"role": "assistant", "content": row["output"]["content"]}] for row in load_rows(file)
    ]


# -- the loss

labels = st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=2, max_size=2)


@given(
    rows=st.lists(labels, min_size=1, max_size=6).filter(
        lambda r: any(v is not None for row in r for v in row)
    )
)
def test_it_is_the_mean_squared_error_over_the_labels_that_are_there(rows):
    generator = torch.Generator().manual_seed(len(rows))
    found = torch.randn(len(rows), 2, generator=generator, requires_grad=True)
    truth = torch.tensor([[MISSING if v is None else v for v in row] for row in rows], dtype=torch.float32)
    loss = masked_mse(SimpleNamespace(logits=found), truth)
    loss.backward()
    known = [(i, j, v) for i, row in enumerate(rows) for j, v in enumerate(row) if v is not None]
    squares = [(float(found[i, j].detach()) - v) ** 2 for i, j, v in known]
    assert float(loss.detach()) == pytest.approx(sum(squares) / len(squares), rel=1e-5)
    there = {(i, j) for i, j, _ in known}
    for i in range(len(rows)):
        for j in range(2):
            if (i, j) not in there:
                assert float(found.grad[i, j]) == 0, "a label that is missing teaches nothing"


def test_a_loss_by_hand():
    found = torch.tensor([[1.0, 3.0], [2.0, 9.0]])
    truth = torch.tensor([[3.0, 3.0], [1.0, MISSING]])
    assert float(masked_mse(SimpleNamespace(logits=found), truth)) == pytest.approx((4 + 0 + 1) / 3)


def test_micro_batches_change_memory_and_not_the_result(settings, tmp_path):
    """Although rows have unequally many labels."""
    from safetensors.torch import load_file

    weights = []
    for micro in (1, 2, 4):
        settings["train"] |= {"micro_batch_size": micro, "max_steps": 3}
        run = train_local(check_config(settings), path=tmp_path / str(micro)).run
        weights.append(load_file(run.latest / "model.safetensors"))
    for other in weights[1:]:
        for name, weight in weights[0].items():
            torch.testing.assert_close(other[name], weight, atol=1e-4, rtol=1e-3, msg=name)


# -- what it learns, and the run


@both
def test_marks_and_length_are_learned(made):
    run = train_local(check_config(made)).run
    first, *_, last = records(run.path, "val")
    assert last["loss"] < 0.2 * first["loss"]
    assert last["mae/helpfulness"] < 0.8 > last["mae/verbosity"]
    assert last["accuracy_untied"] > 0.75
    assert {"loss", "mae", "mae/helpfulness", "mae/verbosity", "accuracy_untied"} <= set(last)
    assert {"loss", "grad_norm", "lr", "tokens_per_second"} <= set(records(run.path, "train")[0])
    best = min((r for r in records(run.path, "val") if r["step"]), key=lambda r: r["loss"])
    assert run.best.resolve().name == f"checkpoint-{2 * best['step']}", "the lowest held-out loss"


def test_a_broken_run_resumes_to_the_metrics_of_an_unbroken_one(settings, tmp_path):
    settings["train"] |= {"max_steps": 8, "eval_every": 2, "save_every": 2}
    assert_resumes(settings, tmp_path)


# -- use


@both
def test_the_score_is_the_weighted_sum_of_what_the_pipeline_gives(made):
    run = train_local(check_config(made)).run
    asked = conversations(made["data"]["val"])
    judge = ScalarJudge.load(run.latest)
    answers = judge.score(asked)
    if judge.tokenizer.chat_template:
        inputs: list[Any] = [judge.tokenizer.apply_chat_template(c, tokenize=False) for c in asked]
    else:
        inputs = [{"text": c[0]["content"], "text_pair": c[1]["content"]} for c in asked]
    for answer, labelled in zip(answers, piped(run.latest, inputs, top_k=None), strict=True):
        values = {one["label"]: one["score"] for one in labelled}
        assert set(values) == set(WEIGHTS)
        assert answer.score == pytest.approx(sum(WEIGHTS[k] * v for k, v in values.items()), abs=1e-5)
        assert json.loads(answer.text) == pytest.approx(values, abs=1e-5)
    assert len({round(answer.score, 3) for answer in answers}) > 3


def test_rmg_eval_ranks_by_the_weighted_sum_and_keeps_each_attribute(settings, tmp_path):

    settings["train"]["max_steps"] = 4  # not perfect yet, so that the figures could differ
    run = train_local(check_config(settings)).run
    result = evaluate_data(Candidate(str(run.latest)), Path(settings["data"]["val"]), tmp_path / "eval")
    found = result.to_metrics_json()["metrics"]["accuracy_untied"]["value"]
    assert found == pytest.approx(records(run.path, "val")[-1]["accuracy_untied"])
    for row in pq.read_table(tmp_path / "eval" / "predictions.parquet").to_pylist():
        values = json.loads(row["text"])
        assert row["value"] == pytest.approx(sum(WEIGHTS[k] * v for k, v in values.items()), abs=1e-5)


def test_adapters_bring_their_head_of_several_labels(settings):
    settings["model"]["lora"] = {"rank": 4, "alpha": 8}
    run = train_local(check_config(settings)).run
    last = records(run.path, "val")[-1]
    rows = load_rows(settings["data"]["val"])
    answers = ScalarJudge.load(run.latest).score(conversations(settings["data"]["val"]))
    errors = [
        abs(json.loads(answer.text)["helpfulness"] - row["helpfulness"])
        for answer, row in zip(answers, rows, strict=True)
    ]
    assert sum(errors) / len(errors) == pytest.approx(last["mae/helpfulness"], abs=1e-4)


def test_another_weighting_is_another_judge(settings, tmp_path):
    """Its answers must not be taken from the journal of the first."""
    run = train_local(check_config(settings)).run
    card = run.latest / "rm_gallery.json"
    before = ScalarJudge.load(run.latest).fingerprint
    values = json.loads(card.read_text(encoding="utf-8"))
    values["attributes"] = {"helpfulness": 0.0, "verbosity": 1.0}
    card.write_text(json.dumps(values), encoding="utf-8")
    judge = ScalarJudge.load(run.latest)
    assert judge.fingerprint != before
    [answer] = judge.score(conversations(settings["data"]["val"])[:1])
    assert answer.score == pytest.approx(json.loads(answer.text)["verbosity"], abs=1e-5)
    values["attributes"] = {"helpfulness": 1.0}
    card.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConfigError, match="2 labels and its card 1 weights"):
        ScalarJudge.load(run.latest)


# -- refused before the model is loaded


def test_a_label_with_a_typo_is_known_before_there_is_a_model(settings, tmp_path):
    settings["model"]["path"] = str(tmp_path / "nowhere")
    settings["regression"] = {"attributes": {"helpfulness": 1, "verbossity": 1}}
    for start in (train_local, check_rows):
        with pytest.raises(DataError, match=r"'verbossity'; .*Did you mean 'verbosity'\?"):
            start(check_config(settings))


def test_training_goes_on_from_adapters_of_several_labels(settings, tmp_path):
    settings["model"]["lora"] = {"rank": 4, "alpha": 8}
    settings["train"]["max_steps"] = 2
    first = train_local(check_config(settings), path=tmp_path / "first").run
    settings["model"]["path"] = str(first.latest)
    settings["train"]["learning_rate"] = 1e-12
    second = train_local(check_config(settings), path=tmp_path / "second").run
    before, after = records(first.path, "val")[-1], records(second.path, "val")[0]
    assert after["mae/helpfulness"] == pytest.approx(before["mae/helpfulness"], abs=1e-5)


def test_a_label_that_is_not_a_number_is_none(settings, tmp_path):
    """Parquet of pandas has NaN where a label is missing."""
    rows = load_rows(settings["data"]["train"])
    for i, row in enumerate(rows):
        row["output"]["label"] = {
            name: math.nan if i < 7 else float(value) for name, value in row["output"]["label"].items()
        }
    kept = ("unique_id", "input", "output")
    rows = [{name: row[name] for name in kept} for row in rows]
    settings["data"]["train"] = str(tmp_path / "nan.parquet")
    pq.write_table(pa.Table.from_pylist(rows), settings["data"]["train"])
    settings["train"]["max_steps"] = 2
    result = train_local(check_config(settings))
    assert result.train_rows == 53
    assert all(math.isfinite(line["loss"]) for line in records(result.run.path, "train"))
