"""The local engine against plain TRL, and its runs: metrics, links, resume after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import MistralConfig, MistralForCausalLM

from rm_gallery.core.data.samples import Message, Sample
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import train_local
from rm_gallery.core.train.run_folder import RunFolder
from tests.grpo_loss import grpo_loss
from tests.train.scalar_runs import assert_resumes, assert_same_run, records

pytestmark = pytest.mark.usefixtures("one_thread")


def write_rows(path: Path, number: int) -> Path:
    rows = [
        Sample(
            (Message("user", f"question {'abc' * (i % 5)} {i}"),),
            f"answer {i}",
            {"helpfulness": i % 5},
            f"row-{i}",
        ).to_row()
        for i in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> dict:
    return {
        "task": "pointwise",
        "method": "grpo",
        "model": {"path": str(tiny_model), "dtype": "float32"},
        "prompt": {"instruction": "Rate."},
        "data": {
            "train": str(write_rows(tmp_path / "train.jsonl", 24)),
            "val": str(write_rows(tmp_path / "val.jsonl", 6)),
        },
        "train": {
            "batch_size": 4,
            "mini_batch_size": 2,
            "max_steps": 4,
            "learning_rate": 1e-3,
            "eval_every": 2,
            "save_every": 2,
        },
        "rollout": {"n": 4, "max_response_length": 8},
        # a reward that random outputs earn differently, so that there is something to learn
        "reward": {"name": "auto"},
        "output_dir": str(tmp_path / "runs"),
    }


def trainer_for(settings: dict, *, shared: bool, tmp_path: Path, rewards=None):
    """A trainer as the engine builds it, with the length of the answer as reward."""
    from rm_gallery.core.data.rows import load_rows
    from rm_gallery.core.models.weights import load_model, load_tokenizer
    from rm_gallery.core.train.local.trainers import Plan, grpo_trainer
    from rm_gallery.core.train.rows import build_examples
    from rm_gallery.core.train.run_folder import RunFolder
    from rm_gallery.core.train.sampling import prompt_order

    model = {**settings["model"], "shared_prefix": shared}
    config = check_config({**settings, "model": model})
    task = config.build_task()
    examples = build_examples(task, load_rows(config.data.train))
    order = prompt_order(range(len(examples)), config.train.batch_size, epochs=1, max_steps=4, seed=0)
    run = RunFolder.create(config, tmp_path / f"shared-{shared}")
    tokenizer = load_tokenizer(config.model.path)
    plan = Plan(config, task, tokenizer, examples, order, False, run)
    trainer = grpo_trainer(plan, load_model(config.model.path))
    return trainer, [{"prompt": examples[i].messages, "index": i} for i in order[:4] for _ in range(4)]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_equal_plain_trl_on_the_same_samples(settings, tmp_path, checkpointing):
    settings["model"]["gradient_checkpointing"] = checkpointing
    ours, rows = trainer_for(settings, shared=True, tmp_path=tmp_path)
    plain, _ = trainer_for(settings, shared=False, tmp_path=tmp_path)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (16,), generator=generator).tolist()
    completions = [torch.randint(0, 256, (n,), generator=generator).tolist() for n in lengths]
    results = {}
    for name, trainer in (("ours", ours), ("plain", plain)):
        trainer.model.train()
        if checkpointing:  # as `train()` does at its beginning
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        trainer.reward_funcs[0] = lambda completion_ids, **_: [float(len(ids)) for ids in completion_ids]
        trainer._generate_single_turn = lambda ids, *_, **__: (completions, None)
        trainer.current_gradient_accumulation_steps = 1
        # not at the reference: the KL term must have a gradient too
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.add_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05
                )
        inputs = trainer._generate_and_score_completions(rows)
        loss = trainer._compute_loss(trainer.model, inputs)
        trainer.accelerator.backward(loss)
        results[name] = (loss.detach(), inputs, {n: p.grad for n, p in trainer.model.named_parameters()})
    torch.testing.assert_close(results["ours"][0], results["plain"][0], atol=1e-6, rtol=1e-5)
    for key in ("ref_per_token_logps", "advantages"):
        torch.testing.assert_close(
            results["ours"][1][key] * 1, results["plain"][1][key] * 1, atol=1e-5, rtol=1e-5
        )
    for name, gradient in results["ours"][2].items():
        torch.testing.assert_close(gradient, results["plain"][2][name], atol=2e-6, rtol=1e-4, msg=name)


def test_checkpointing_needs_attention_that_a_forest_knows(settings, tmp_path):
    """Else the shared prompt is in a cache, and checkpointing has none."""
    windowed = tmp_path / "windowed"
    shutil.copytree(settings["model"]["path"], windowed)
    MistralForCausalLM(
        MistralConfig(
            vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, sliding_window=8,
        )
    ).save_pretrained(windowed)  # fmt: skip
    settings["model"] |= {"path": str(windowed), "gradient_checkpointing": True}
    with pytest.raises(ConfigError, match=r"model.gradient_checkpointing drops.* model.shared_prefix"):
        trainer_for(settings, shared=True, tmp_path=tmp_path)


@pytest.mark.parametrize("shared", [True, False])
def test_the_loss_is_the_documented_one(settings, tmp_path, shared):
    """The same formula as engine verl is held to (tests/verl/test_loss.py)."""
    settings["loss"] = {"clip": 0.2, "kl_coef": 0.3}
    trainer, rows = trainer_for(settings, shared=shared, tmp_path=tmp_path)
    trainer.model.train()
    trainer.reward_funcs[0] = lambda completion_ids, **_: [float(ids[0] % 5) for ids in completion_ids]
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(3)
    inputs = trainer._prepare_inputs(rows)
    with (
        torch.no_grad()
    ):  # away from the weights that sampled, so that ratios are clipped and the KL is not 0
        for parameter in trainer.model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        log_probs = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, inputs["completion_ids"].size(1)
        )[0]
    ratio = (log_probs - inputs["old_per_token_logps"]).exp()
    assert ((ratio > 1.2) | (ratio < 0.8)).any(), "some ratios are clipped"
    expected = grpo_loss(
        log_probs,
        inputs["old_per_token_logps"],
        inputs["ref_per_token_logps"],
        inputs["advantages"],
        inputs["completion_mask"],
        clip=0.2,
        kl_coef=0.3,
    )
    got = trainer._compute_loss(trainer.model, inputs).detach()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_sampling_draws_the_same_tokens_as_plain_trl(settings, tmp_path):
    """The same seed and the same distribution give the same samples: the cache is used rightly."""
    drawn = []
    for shared in (True, False):
        trainer, rows = trainer_for(settings, shared=shared, tmp_path=tmp_path)
        ids, images, fields = trainer._tokenize_prompts([row["prompt"] for row in rows])
        assert len({len(i) for i in ids}) > 1, "prompts of unequal length, so that there is padding"
        torch.manual_seed(5)
        drawn.append(trainer._generate_single_turn(ids, images, fields, 4)[0])
    assert drawn[0] == drawn[1]
    assert len({tuple(tokens) for tokens in drawn[0]}) > 1


def test_a_run_leaves_metrics_checkpoints_and_links(settings, tmp_path):
    run = train_local(check_config(settings)).run.path
    lines = records(run)
    assert [(r["step"], r["split"]) for r in lines] == [
        (0, "val"), (1, "train"), (2, "train"), (2, "val"), (3, "train"), (4, "train"), (4, "val"),
    ]  # fmt: skip
    wanted = {
        "reward/mean",
        "accuracy",
        "mae",
        "kl_loss",
        "parse_rate",
        "response_length/mean",
        "entropy",
        "grad_norm",
    }
    timing = {
        "timing_s/generate",
        "timing_s/log_probs",
        "timing_s/reward",
        "timing_s/update",
        "timing_s/step",
    }
    assert wanted | timing | {"tokens_per_second"} <= set(lines[1])
    assert (run / "actor_latest").resolve().name == "checkpoint-8", "two updates a step"
    assert (run / "actor_latest" / "rm_gallery.json").is_file()
    assert (run / "best" / "model.safetensors").is_file()
    assert "step 4" in (run / "logs" / "training.log").read_text(encoding="utf-8")
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["train"]["batch_size"] == 4


SCRIPT = """
import sys, yaml, torch
torch.set_num_threads(1)
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import train_local
from tests.grpo_loss import grpo_loss
from pathlib import Path
settings, run, resume = yaml.safe_load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "resume"
train_local(check_config(settings), path=run, resume=resume)
"""


def test_a_killed_run_resumes_to_the_metrics_of_an_unbroken_one(settings, tmp_path):
    settings = {**settings, "train": {**settings["train"], "max_steps": 6}}
    settings["rollout"] = {**settings["rollout"], "max_response_length": 8}
    whole = train_local(check_config(settings), path=tmp_path / "whole").run.path
    broken = tmp_path / "broken"
    command = [sys.executable, "-c", SCRIPT, yaml.safe_dump(settings), str(broken)]
    process = subprocess.Popen([*command, "start"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (broken / "metrics.jsonl").is_file() and any(r["step"] == 3 for r in records(broken)):
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert any(r["step"] >= 2 for r in records(broken))
    done = subprocess.run([*command, "resume"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same_run(whole, broken)


def test_a_broken_supervised_run_resumes_to_the_metrics_of_an_unbroken_one(settings, tmp_path):
    settings = {**settings, "method": "sft", "train": {**settings["train"], "max_steps": 6}}
    settings["rollout"] = {**settings["rollout"], "max_response_length": 20}
    assert_resumes(settings, tmp_path)


def test_lora_trains_adapters_and_the_folder_can_be_judged_with(settings):
    from rm_gallery.core.judge import LocalJudge

    settings["model"]["lora"] = {"rank": 4, "alpha": 8}
    run = train_local(check_config(settings)).run
    assert (run.latest / "adapter_model.safetensors").is_file()
    assert records(run.path)[1]["kl_loss"] == pytest.approx(0, abs=1e-6), "adapters start at the reference"
    judge = LocalJudge.load(run.latest)
    assert len(judge.generate([[{"role": "user", "content": "hi"}]], max_new_tokens=4)) == 1


def test_a_run_that_starts_from_adapters_starts_from_what_they_learnt(settings, tmp_path):
    """The reference and the saved base must be the merged weights: the base's name alone would lose the adapters."""
    from rm_gallery.core.models.weights import load_model

    settings["model"]["lora"] = {"rank": 4, "alpha": 64}
    settings["method"] = "sft"
    settings["rollout"]["max_response_length"] = 20
    settings["train"]["learning_rate"] = 1e-2
    first = train_local(check_config(settings), path=tmp_path / "first").run
    settings["method"], settings["model"] = "grpo", {**settings["model"], "path": str(first.latest)}
    settings["train"]["learning_rate"] = 1e-12
    second = train_local(check_config(settings), path=tmp_path / "second").run
    assert records(second.path)[1]["kl_loss"] == pytest.approx(0, abs=1e-5)
    learnt, kept = (load_model(run.latest).state_dict() for run in (first, second))
    for name, weight in learnt.items():
        torch.testing.assert_close(kept[name], weight, atol=1e-5, rtol=1e-4, msg=name)


def test_the_last_step_is_evaluated_whatever_the_interval(settings):
    settings["train"]["eval_every"] = 3
    run = train_local(check_config(settings)).run.path
    assert [r["step"] for r in records(run) if r["split"] == "val"] == [0, 3, 4]


def test_a_folder_with_a_run_is_not_trained_into_again(settings, tmp_path):
    train_local(check_config(settings), path=tmp_path / "run")
    with pytest.raises(ConfigError, match="--resume"):
        train_local(check_config(settings), path=tmp_path / "run")


def test_old_checkpoints_go_and_linked_ones_stay(settings):
    settings["train"] |= {"save_every": 1, "eval_every": None, "keep_checkpoints": 1}
    run = train_local(check_config(settings)).run.path
    names = {folder.name for folder in run.glob("checkpoint-*")}
    assert names == {"checkpoint-8"} | (
        {(run / "best").resolve().name} if (run / "best").is_symlink() else set()
    )


def test_each_update_is_the_mean_over_the_tokens_of_its_own_mini_batch(settings, tmp_path):
    """The documented loss: TRL alone would divide by the average of the whole batch."""
    trainer, rows = trainer_for(settings, shared=True, tmp_path=tmp_path)
    trainer.model.train()
    lengths = [1] * 8 + [7] * 8  # the first mini-batch (two prompts of four samples) is much shorter
    trainer._generate_single_turn = lambda ids, *_, **__: ([[65] * n for n in lengths], None)
    trainer.current_gradient_accumulation_steps = 1
    first = trainer._prepare_inputs(rows)
    scale = trainer.current_gradient_accumulation_steps / trainer.args.steps_per_generation
    assert float(first["num_items_in_batch"]) * scale == 8
    trainer._step = 1
    assert float(trainer._prepare_inputs(rows)["num_items_in_batch"]) * scale == 56


def test_tensorboard_gets_the_same_names(settings, tmp_path):
    settings["track"] = ["console", "tensorboard"]
    train_local(check_config(settings))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [events] = {p.parent for p in tmp_path.rglob("events.out.tfevents.*")}
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    assert {"train/reward/mean", "train/kl_loss", "eval/reward/mean"} <= set(tags)


def test_resume_with_another_configuration_names_the_keys(settings, tmp_path):
    train_local(check_config(settings), path=tmp_path / "run")
    settings["train"]["learning_rate"] = 0.5
    with pytest.raises(ConfigError, match=r"train\.learning_rate"):
        train_local(check_config(settings), path=tmp_path / "run", resume=True)


def test_a_new_run_does_not_start_from_what_an_ended_one_had_merged(settings, tmp_path):
    """A run that ended before its first checkpoint leaves the merged start, and its folder may be used again."""
    from rm_gallery.core.models.weights import load_model

    settings["model"]["lora"] = {"rank": 4, "alpha": 64}
    settings |= {"method": "sft"}
    settings["rollout"]["max_response_length"] = 20
    settings["train"] |= {"learning_rate": 1e-2, "max_steps": 1}
    first = train_local(check_config(settings), path=tmp_path / "first").run
    other = tmp_path / "run" / "start"
    shutil.copytree(settings["model"]["path"], other)
    settings["model"]["path"] = str(first.latest)
    settings["train"]["learning_rate"] = 1e-12
    second = train_local(check_config(settings), path=other.parent).run
    learnt, kept = (load_model(run.latest).state_dict() for run in (first, second))
    for name, weight in learnt.items():
        torch.testing.assert_close(kept[name], weight, atol=1e-5, rtol=1e-4, msg=name)


def test_a_run_computes_in_one_dtype_whatever_is_faster_later(settings, tmp_path, monkeypatch):
    from rm_gallery.core.train.local import engine

    settings["model"]["dtype"] = "auto"
    settings["train"] |= {"max_steps": 2, "save_every": 1}
    monkeypatch.setattr(engine, "resolve_dtype", lambda _: torch.bfloat16)
    run = train_local(check_config(settings), path=tmp_path / "run").run
    monkeypatch.setattr(engine, "resolve_dtype", lambda _: torch.float32)
    assert engine._with_one_dtype(check_config(settings), run, resume=True).model.dtype == "bfloat16"
    train_local(check_config(settings), path=tmp_path / "run", resume=True)


def test_a_run_from_before_a_key_goes_on(settings, tmp_path):
    """What was not there had the value that it has by default."""
    settings["train"] |= {"max_steps": 2, "save_every": 1}
    run = train_local(check_config(settings), path=tmp_path / "run").run
    file = run.path / "config.yaml"
    values = yaml.safe_load(file.read_text())
    del values["train"]["micro_batch_tokens"], values["rollout"]["eval_batch_size"]
    file.write_text(yaml.safe_dump(values))
    assert RunFolder.find(check_config(settings), run.path).path == run.path
    broken = tmp_path / "runs" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match="was started with another"):
        RunFolder.find(check_config(settings))


def test_a_prompt_leaves_the_context_room_for_a_verdict(settings, tiny_model, tmp_path):
    folder = tmp_path / "short"
    shutil.copytree(tiny_model, folder)
    values = json.loads((folder / "config.json").read_text())
    rows = [json.loads(line) for line in Path(settings["data"]["train"]).read_text().splitlines()]
    rows[3]["input"][0]["content"] = "long " * 100
    Path(settings["data"]["train"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps({**values, "max_position_embeddings": 400}))
    settings["model"]["path"], settings["train"]["max_steps"] = str(folder), 1
    result = train_local(check_config(settings))
    assert (result.train_rows, result.overlong) == (23, 1)
    assert "context of 400 less 17 for the answer" in " ".join(result.notes)
