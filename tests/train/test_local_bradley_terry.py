"""Bradley-Terry training: its loss beside plain TRL's, what it learns, its runs, and its folder in use."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import Message, conversation_text
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate.model import evaluate_data
from rm_gallery.core.evaluate.report import read_inputs, render_report
from rm_gallery.core.judge.scalar import ScalarJudge, encode, is_scalar_model
from rm_gallery.core.judge.scalar_card import load_scalar_card
from rm_gallery.core.judge.subject import Candidate
from rm_gallery.core.tasks.saved import load_saved_task
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import check_rows, train_local
from rm_gallery.core.train.local.bradley_terry import BradleyTerryJob
from rm_gallery.core.train.merge import merge_checkpoint
from rm_gallery.core.train.run_folder import RunFolder
from tests.tiny import build_encoder
from tests.train.scalar_runs import (
    assert_resumes,
    piped,
    records,
    write_pairs,
    write_ratings,
)

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("decoder", "encoder")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture
def models(tiny_model: Path, tiny_encoder: Path) -> dict[str, Path]:
    return {"decoder": tiny_model, "encoder": tiny_encoder}


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    return {
        "method": "bradley_terry",
        "model": {"path": str(tiny_model), "dtype": "float32"},
        "data": {
            "train": str(write_pairs(tmp_path / "train.jsonl", 48)),
            "val": str(write_pairs(tmp_path / "val.jsonl", 12, start=100)),
        },
        "train": {
            "batch_size": 8,
            "mini_batch_size": 4,
            "max_steps": 12,
            "learning_rate": 3e-3,
            "eval_every": 6,
            "save_every": 6,
        },
        "output_dir": str(tmp_path / "runs"),
    }


def with_(settings: dict[str, Any], model: Path, **section: Any) -> dict[str, Any]:
    return {**settings, "model": {**settings["model"], "path": str(model)}, "bradley_terry": section}


def conversations(file: str | Path) -> list[list[dict[str, str]]]:
    """Each response of a file of pairs, in its conversation."""
    return [
        [*row["input"], {"role": "assistant", "content": output["content"]}]
        for row in load_rows(file)
        for output in row["output"]
    ]


# -- the loss


def trainer_for(settings: dict[str, Any], folder: Path) -> Any:
    config = check_config({**settings, "data": {**settings["data"], "val": None}})
    job = BradleyTerryJob.prepare(config)
    return job.trainer(RunFolder.create(config, folder), config.model.path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("margin", "center"), [("none", 0.0), ("strength", 0.0), ("strength", 0.1)])
def test_without_ties_loss_and_gradients_are_plain_trls(settings, models, tmp_path, kind, margin, center):
    section = {"margin": margin, "center_coef": center, "margin_scale": 0.5}
    ours = trainer_for(with_(settings, models[kind], **section), tmp_path / "run")
    rows = [ours.train_dataset[i] for i in range(4)]
    batch = ours.data_collator(rows)
    original = copy.deepcopy(ours.model)
    assert (original.__dict__.pop("forward", None) is not None) == (kind == "decoder"), (
        "ours, for each text once"
    )
    plain = RewardTrainer(
        original,
        RewardConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            center_rewards_coefficient=center,
        ),
        train_dataset=datasets.Dataset.from_list(
            [{"chosen_ids": row["chosen_ids"], "rejected_ids": row["rejected_ids"]} for row in rows]
        ),
        processing_class=ours.processing_class,
    )
    theirs = {key: value for key, value in batch.items() if key not in ("tied", "margin")}
    if margin == "strength":
        theirs["margin"] = batch["margin"]
    results = []
    for trainer, inputs in ((ours, batch), (plain, theirs)):
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, dict(inputs))
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), gradients))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=1e-5)
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], atol=1e-6, rtol=1e-4, msg=name)


def loss_and_head(trainer: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return float(loss.detach()), trainer.model.classifier.weight.grad.clone()


@pytest.mark.parametrize("ties", ["drop", "rao_kupper", "davidson"])
def test_a_constant_added_to_every_score_changes_neither_loss_nor_gradient(
    settings, tiny_encoder, tmp_path, ties
):
    """Only centring sees it."""
    settings["data"]["train"] = str(write_pairs(tmp_path / "tied.jsonl", 24, ties=ties != "drop"))
    for center in (0.0, 0.1):
        section = {"ties": ties, "margin": "strength", "center_coef": center}
        trainer = trainer_for(with_(settings, tiny_encoder, **section), tmp_path / f"{center}")
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
        before = loss_and_head(trainer, batch)
        with torch.no_grad():
            trainer.model.classifier.bias += 5.0
        after = loss_and_head(trainer, batch)
        if center:
            assert after[0] > before[0] + 1
        else:
            assert after[0] == pytest.approx(before[0], abs=1e-5)
            torch.testing.assert_close(after[1], before[1], atol=1e-5, rtol=1e-4)


def test_swapping_chosen_and_rejected_flips_the_gap(settings, tmp_path):
    figures = []
    for swapped in (False, True):
        trainer = trainer_for(settings, tmp_path / f"{swapped}")
        rows = [dict(trainer.train_dataset[i]) for i in range(4)]
        if swapped:
            for row in rows:
                row["chosen_ids"], row["rejected_ids"] = row["rejected_ids"], row["chosen_ids"]
        trainer.compute_loss(trainer.model, trainer.data_collator(rows))
        figures.append(list(trainer._metrics["train"]["reward_gap"]))
    assert figures[0] == pytest.approx([-gap for gap in figures[1]], abs=1e-6)
    assert all(abs(gap) > 1e-4 for gap in figures[0])


def test_micro_batches_change_memory_and_not_the_result(settings, tmp_path):
    weights = []
    for micro in (1, 2, 4):
        made = {**settings, "train": {**settings["train"], "micro_batch_size": micro, "max_steps": 3}}
        run = train_local(check_config(made), path=tmp_path / str(micro)).run
        weights.append(_weights(run))
    for other in weights[1:]:
        for name, weight in weights[0].items():
            torch.testing.assert_close(other[name], weight, atol=1e-5, rtol=1e-3, msg=name)


def _weights(run: RunFolder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.latest / "model.safetensors")


# -- what it learns


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", ["drop", "rao_kupper", "davidson"])
def test_a_separable_set_is_learned(settings, models, tmp_path, kind, ties):
    if ties != "drop":
        settings["data"]["train"] = str(write_pairs(tmp_path / "tied.jsonl", 48, ties=True))
    settings["train"]["max_steps"] = 20
    run = train_local(check_config(with_(settings, models[kind], ties=ties))).run
    first, *_, last = records(run.path, "val")
    assert first["accuracy_untied"] < 0.9
    assert last["accuracy_untied"] == 1.0
    assert last["reward/gap"] > 1


def test_ratings_are_pairs_too(settings, tmp_path):
    settings["data"] = {
        "train": str(write_ratings(tmp_path / "rated.jsonl", 60)),
        "val": str(write_ratings(tmp_path / "rated_val.jsonl", 20, start=100)),
    }
    settings["train"]["max_steps"] = 30
    run = train_local(check_config(settings)).run
    assert records(run.path, "val")[-1]["accuracy_untied"] > 0.9


def test_centring_brings_the_scores_to_zero(settings, tiny_encoder, tmp_path):
    """From a head that starts far off; the likelihood alone would leave it there."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=1)
    with torch.no_grad():
        model.classifier.bias += 5.0
    model.save_pretrained(tmp_path / "off")
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path / "off")
    settings["train"] |= {"max_steps": 30}
    means = []
    for center in (0.0, 0.1):
        run = train_local(check_config(with_(settings, tmp_path / "off", center_coef=center))).run
        means.append(abs(records(run.path, "val")[-1]["score/mean"]))
    assert means[0] > 3
    assert means[1] < 0.5 * means[0]


def test_a_learned_parameter_moves_and_a_fixed_one_stays(settings, tmp_path):
    settings["data"]["train"] = str(write_pairs(tmp_path / "tied.jsonl", 48, ties=True))
    for parameter in (None, 3.0):
        section = {"ties": "davidson", "tie_parameter": parameter}
        run = train_local(check_config({**settings, "bradley_terry": section})).run
        lines = [record.get("tie_parameter") for record in records(run.path, "train")]
        card = load_scalar_card(run.latest)
        assert card is not None
        assert card.ties["likelihood"] == "davidson"
        if parameter is None:
            assert len(set(lines)) == len(lines)
            assert card.ties["parameter"] == lines[-1]
        else:
            assert set(lines) == {None}
            assert card.ties["parameter"] == pytest.approx(3.0, rel=1e-6)


# -- the run


def test_a_run_leaves_metrics_checkpoints_links_and_a_card(settings, tmp_path):
    result = train_local(check_config(settings))
    run = result.run
    assert (result.steps, result.train_rows, result.unit) == (12, 48, "pairs")
    seen = [(record["step"], record["split"]) for record in records(run.path)]
    assert [step for step, split in seen if split == "train"] == list(range(1, 13))
    assert [step for step, split in seen if split == "val"] == [0, 6, 12]
    wanted = {"loss", "accuracy_untied", "reward/gap", "score/mean", "grad_norm", "lr", "tokens_per_second"}
    assert wanted <= set(records(run.path, "train")[0])
    assert {"loss", "accuracy_untied", "reward/gap", "score/mean", "seconds"} <= set(
        records(run.path, "val")[0]
    )
    assert run.latest.resolve().name == "checkpoint-24", "two updates a step"
    assert (run.best / "model.safetensors").is_file()
    card = json.loads((run.latest / "rm_gallery.json").read_text(encoding="utf-8"))
    assert (card["kind"], card["method"], card["examples"]) == ("scalar", "bradley_terry", 48)
    assert card["data"] == settings["data"]["train"]
    assert is_scalar_model(run.latest)
    with pytest.raises(ConfigError, match="is a scalar model"):
        load_saved_task(run.latest)
    with pytest.raises(ConfigError, match="--resume"):
        train_local(check_config(settings), path=run.path)


def test_the_best_checkpoint_is_that_of_the_highest_held_out_accuracy(settings):
    settings["train"] |= {"eval_every": 1, "save_every": None, "learning_rate": 1e-3}
    run = train_local(check_config(settings)).run
    lines = [record for record in records(run.path, "val") if record["step"]]
    top = max(lines, key=lambda record: (record["accuracy_untied"], -record["step"]))
    assert run.best.resolve().name == f"checkpoint-{2 * top['step']}"


def test_a_broken_run_resumes_to_the_metrics_of_an_unbroken_one(settings, tiny_encoder, tmp_path):
    """With all that a run has to remember: a learned parameter, a margin, centring, half a schedule."""
    section = {"ties": "rao_kupper", "margin": "strength", "center_coef": 0.01}
    settings = with_(settings, tiny_encoder, **section)
    settings["data"]["train"] = str(write_pairs(tmp_path / "tied.jsonl", 48, ties=True))
    settings["train"] |= {"max_steps": 8, "eval_every": 2, "save_every": 2, "scheduler": "cosine"}
    assert_resumes(settings, tmp_path, ("model.safetensors", "rm_gallery.json"))


def test_a_new_seed_draws_another_head(settings):
    heads = []
    for seed in (0, 0, 1):
        made = {
            **settings,
            "train": {**settings["train"], "seed": seed, "max_steps": 1, "learning_rate": 1e-12},
        }
        heads.append(_weights(train_local(check_config(made)).run)["score.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.allclose(heads[0], heads[2])


# -- use


@pytest.mark.parametrize("kind", KINDS)
def test_rmg_eval_says_what_the_last_held_out_line_says(settings, models, tmp_path, kind):
    """Training and use render the same texts: the code is one, and so are the figures."""
    settings["data"]["val"] = str(write_pairs(tmp_path / "noisy.jsonl", 24, wrong=True))
    run = train_local(check_config(with_(settings, models[kind]))).run
    result = evaluate_data(Candidate(str(run.latest)), Path(settings["data"]["val"]), tmp_path / "eval")
    found = result.to_metrics_json()["metrics"]["accuracy_untied"]["value"]
    assert found == pytest.approx(records(run.path, "val")[-1]["accuracy_untied"])
    assert found == 0.75, "all but those with the wrong label"


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_scores_as_transformers_own_pipeline_does(settings, models, tmp_path, kind):
    run = train_local(check_config(with_(settings, models[kind]))).run
    asked = conversations(settings["data"]["val"])
    judge = ScalarJudge.load(run.latest)
    scores = [answer.score for answer in judge.score(asked)]
    if kind == "decoder":
        inputs: list[Any] = [judge.tokenizer.apply_chat_template(c, tokenize=False) for c in asked]
    else:
        inputs = [
            {
                "text": conversation_text([Message(turn["role"], turn["content"]) for turn in c[:-1]]),
                "text_pair": c[-1]["content"],
            }
            for c in asked
        ]
    # as the docs have it: a chat template has written the special tokens
    found = piped(run.latest, inputs, **({"add_special_tokens": False} if kind == "decoder" else {}))
    assert {one["label"] for one in found} == {"score"}
    assert scores == pytest.approx([one["score"] for one in found], abs=1e-5)
    assert len({round(score, 3) for score in scores}) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_on_is_what_is_asked(settings, models, tmp_path, kind):
    trainer = trainer_for(with_(settings, models[kind]), tmp_path / "run")
    tokens = {tuple(row[side]) for row in trainer.train_dataset for side in ("chosen_ids", "rejected_ids")}
    asked = {
        tuple(encode(trainer.processing_class, c)["input_ids"])
        for c in conversations(settings["data"]["train"])
    }
    assert tokens == asked


@pytest.mark.parametrize("kind", [*KINDS, "no-pooler"])
def test_adapters_bring_all_that_was_drawn(settings, models, tmp_path, kind):
    """A pooler that the base does not have is trained whole: drawn anew at loading, it would give other scores."""
    model = models[kind] if kind in models else build_encoder(tmp_path / "bare", pooler=False)
    made = with_(settings, model)
    made["model"]["lora"] = {"rank": 4, "alpha": 8}
    made["train"]["learning_rate"] = 1e-2
    run = train_local(check_config(made)).run
    assert (run.latest / "adapter_model.safetensors").is_file()
    first, *_, last = records(run.path, "val")
    assert last["loss"] < 0.5 * first["loss"]
    asked = conversations(settings["data"]["val"])
    scores = [answer.score for answer in ScalarJudge.load(run.latest).score(asked)]
    pairs = list(zip(scores[::4], scores[1::4], strict=True))  # the forward rows: the chosen response first
    share = sum(a > b for a, b in pairs) / len(pairs)
    assert share == pytest.approx(last["accuracy_untied"])
    merged = merge_checkpoint(run.path, tmp_path / "merged")
    assert [a.score for a in ScalarJudge.load(merged).score(asked)] == pytest.approx(scores, abs=1e-5)
    assert json.loads((merged / "config.json").read_text(encoding="utf-8"))["problem_type"] == "regression"
    assert "text-classification" in (merged / "README.md").read_text(encoding="utf-8")


def test_training_goes_on_from_a_scalar_model_and_from_adapters(settings, tmp_path):
    first = train_local(check_config(settings), path=tmp_path / "first").run
    settings["model"] |= {"path": str(first.latest), "lora": {"rank": 4, "alpha": 8}}
    second = train_local(check_config(settings), path=tmp_path / "second").run
    settings["model"] |= {"path": str(second.latest), "lora": None}
    third = train_local(check_config(settings), path=tmp_path / "third").run
    for before, after in ((first, second), (second, third)):
        start, end = records(after.path, "val")[0], records(before.path, "val")[-1]
        assert start["loss"] == pytest.approx(end["loss"], abs=1e-5), "it starts where the other one stopped"


def test_every_checkpoint_is_evaluated_and_not_the_folder_without_a_head(settings, tmp_path):
    run = train_local(check_config(settings)).run
    done = CliRunner().invoke(
        app, ["eval", str(run.path), "--every-checkpoint", "--data", settings["data"]["val"]]
    )
    assert done.exit_code == 0, done.output
    [curve] = run.path.glob("eval/*/curve.json")
    points = json.loads(curve.read_text(encoding="utf-8"))
    held_out = [r for r in records(run.path, "val") if r["step"]]
    steps = [record["step"] for record in held_out]
    assert [point["step"] for point in points] == steps == [6, 12], "and not updates, two a step"
    figures = [point["metrics"]["accuracy_untied"]["value"] for point in points]
    assert figures == pytest.approx([record["accuracy_untied"] for record in held_out])


def test_the_report_draws_a_runs_curves(settings):
    page = render_report(read_inputs([train_local(check_config(settings)).run.path]))
    for title in ("Accuracy on untied pairs", "Score of the chosen response minus the other"):
        assert title in page
    assert "Loss on the answer" not in page, "which is what a written verdict's loss is called"


# -- refused before the model is loaded


def test_bad_rows_are_known_before_there_is_a_model(settings, tmp_path):
    """The model's path leads nowhere, and the label is what is complained of."""
    settings["data"] = {"train": str(write_ratings(tmp_path / "rated.jsonl", 8))}
    settings |= {"bradley_terry": {"label": "helpfullness"}}
    settings["model"]["path"] = str(tmp_path / "nowhere")
    for start in (train_local, check_rows):
        with pytest.raises(DataError, match="Did you mean 'helpfulness'"):
            start(check_config(settings))
    settings |= {"bradley_terry": {}}
    assert check_rows(check_config(settings)) == []
    with pytest.raises(ConfigError, match="nowhere"):
        train_local(check_config(settings))
    assert not (tmp_path / "runs").exists()


def test_what_the_dry_run_says_of_ties(settings, tmp_path):
    settings["data"]["train"] = str(write_pairs(tmp_path / "tied.jsonl", 12, ties=True))
    [note] = check_rows(check_config(settings))
    assert "4 of 12 pairs are ties and left out" in note


def test_what_does_not_fit_is_counted(settings, tiny_encoder, tmp_path):
    """By the YAML's length, and by the model's context where that is shorter."""
    settings["data"]["max_prompt_length"] = 27
    result = train_local(check_config(settings))
    assert 0 < result.overlong < 48
    assert result.train_rows == 48 - result.overlong
    assert (
        f"{result.overlong} of 48 training pairs are longer than data.max_prompt_length=27 tokens"
        in " ".join(result.notes)
    )
    short = build_encoder(tmp_path / "short", positions=24)
    settings["data"]["max_prompt_length"] = 4096
    result = train_local(check_config(with_(settings, short)))
    assert result.overlong > 0
    assert "longer than the model's context of 24 tokens" in " ".join(result.notes)
    settings["data"]["max_prompt_length"] = 5
    with pytest.raises(DataError, match=r"all 48 training pairs are longer than data\.max_prompt_length=5"):
        train_local(check_config(settings))


@pytest.mark.parametrize("key", ["think", "instruction"])
def test_a_prompt_has_no_place_here(settings, key):
    settings["prompt"] = {key: True if key == "think" else "Rate."}
    with pytest.raises(ConfigError, match=r"prompt\.think"):
        check_rows(check_config(settings))


def test_a_head_of_another_size_is_refused(settings, tmp_path):
    path = settings["model"]["path"]
    AutoModelForSequenceClassification.from_pretrained(path, num_labels=3).save_pretrained(tmp_path / "three")
    AutoTokenizer.from_pretrained(path).save_pretrained(tmp_path / "three")
    with pytest.raises(ConfigError, match="head of another size"):
        train_local(check_config(with_(settings, tmp_path / "three")))
