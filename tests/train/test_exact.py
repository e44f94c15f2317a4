"""Runs of method `exact` on a tiny model: what they learn and leave behind, resume, adapters, refusals."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.weights import load_model, load_tokenizer
from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.core.tasks.saved import load_saved_task
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import check_rows, train_local
from rm_gallery.core.train.local.exact import ExactJob, ExactTrainer, check_model
from rm_gallery.core.train.run_folder import RunFolder
from tests.train.exact_parts import settings_for
from tests.train.scalar_runs import assert_resumes, records

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def started(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after a start by the log score, which an untrained model can be trained by."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("started")
    train = {"max_steps": 30, "learning_rate": 1e-2}
    reward = {"name": "log_score"}
    run = train_local(check_config(settings_for(tiny_model, folder, train=train, reward=reward))).run
    lines = records(run.path, "train")
    assert lines[0]["parse_rate"] < 1e-9
    assert lines[-1]["parse_rate"] > 0.2
    assert lines[0]["reward/mean"] < 0 < lines[-1]["reward/mean"]
    return run.latest.resolve()


def a_trainer(settings: dict[str, Any], folder: Path) -> Any:
    job = ExactJob.prepare(check_config(settings))
    return job.trainer(RunFolder.create(job.config, folder), settings["model"]["path"])


def batch(trainer: Any, rows: range) -> dict[str, torch.Tensor]:
    return trainer.data_collator([trainer.train_dataset[i] for i in rows])


def shaken(trainer: Any) -> Any:
    """Away from the reference, so that the KL term has a gradient too."""
    with torch.no_grad():
        for i, parameter in enumerate(trainer.model.parameters()):
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
                parameter.add_(noise * 0.01)
    return trainer


def gradients(trainer: Any, parts: list[range]) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the mean loss over all parts, computed part by part."""
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = len(parts)
    loss = sum(float(trainer.training_step(trainer.model, batch(trainer, part))) for part in parts)
    found = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return loss, found


@pytest.mark.parametrize("reward", ["exp_decay", "rps"])
def test_a_step_equals_verdicts_written_one_by_one_without_packing(started, tmp_path, reward) -> None:
    settings = settings_for(started, tmp_path, reward={"name": reward}, loss={"kl_coef": 0.1})
    trainer = shaken(a_trainer(settings, tmp_path / "run"))
    model, reference = load_model(started), load_model(started)
    model.load_state_dict(trainer.model.state_dict())
    loss, found = gradients(trainer, [range(8)])
    tokenizer, task = trainer.processing_class, PointwiseTask(trainer_reward(settings), instruction="Rate.")
    examples = [trainer.train_dataset[i] for i in range(8)]
    texts = [
        tokenizer(task.format(v) + "<|end|>", add_special_tokens=False)["input_ids"] for v in task.verdicts()
    ]

    def written(model: Any, prompt: list[int], text: list[int]) -> torch.Tensor:
        logits = model(input_ids=torch.tensor([prompt + text]), use_cache=False).logits
        steps = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return steps[torch.arange(len(text)), torch.tensor(text)].double().sum()

    total = torch.zeros((), dtype=torch.float64)
    for example in examples:
        p = torch.stack([written(model, example["input_ids"], text) for text in texts])
        with torch.no_grad():
            q = torch.stack([written(reference, example["input_ids"], text) for text in texts])
        p, q, t = p.exp(), q.exp(), example["truth"]
        o, r = 1 - p.sum(), 1 - q.sum()
        if reward == "rps":
            side = [p[: k + 1].sum() if t <= k else p[k + 1 :].sum() for k in range(4)]
            gain = 1 - sum((1 - each) ** 2 for each in side) / 4
        else:
            gain = sum(p[v] * task.reward(v, t) for v in range(5))
        total = total - gain + 0.1 * ((p * (p / q).log()).sum() + o * (o / r).log())
    (total / len(examples)).backward()
    assert loss == pytest.approx(float(total.detach()) / len(examples), abs=1e-5)
    assert max(float(g.norm()) for g in found.values()) > 0.01
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def trainer_reward(settings: dict[str, Any]) -> Any:
    return check_config(settings).reward


@pytest.mark.parametrize("model", [{}, {"gradient_checkpointing": True}, {"lora": {"rank": 4}}], ids=str)
def test_micro_batches_and_checkpointing_change_memory_only(started, tmp_path, model) -> None:
    loss = {"kl_coef": 0.1}
    plain = {key: value for key, value in model.items() if key == "lora"}
    settings = settings_for(started, tmp_path, loss=loss, model=plain)
    whole = gradients(shaken(a_trainer(settings, tmp_path / "whole")), [range(8)])
    settings = settings_for(started, tmp_path, loss=loss, model=model)
    parts = gradients(
        shaken(a_trainer(settings, tmp_path / "parts")), [range(2 * i, 2 * i + 2) for i in range(4)]
    )
    assert parts[0] == pytest.approx(whole[0], abs=1e-5)
    assert parts[1].keys() == whole[1].keys()
    assert max(float(g.abs().max()) for g in whole[1].values()) > 1e-3
    for name, gradient in whole[1].items():
        torch.testing.assert_close(parts[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_rows_with_one_prompt_are_encoded_once_and_count_each(started, tmp_path) -> None:
    trainer = a_trainer(settings_for(started, tmp_path), tmp_path / "run")
    row = trainer.train_dataset[0]
    twice = trainer.data_collator([row, {**row, "truth": (row["truth"] + 1) % 5}])
    trainer.current_gradient_accumulation_steps = 1
    losses = []
    for one in ([row], [{**row, "truth": (row["truth"] + 1) % 5}]):
        losses.append(float(trainer.training_step(trainer.model, trainer.data_collator(one))))
    assert float(trainer.training_step(trainer.model, twice)) == pytest.approx(sum(losses) / 2, abs=1e-6)


# -- runs


@pytest.mark.parametrize("reward", ["auto", "rps"])
def test_a_rule_is_learnt(started, tmp_path, reward) -> None:
    """The number of exclamation marks, better than the best constant could be."""
    settings = settings_for(
        started,
        tmp_path,
        train={"max_steps": 60, "learning_rate": 5e-3, "eval_every": 60},
        reward={"name": reward},
    )
    run = train_local(check_config(settings)).run.path
    train, val = records(run, "train"), records(run, "val")
    first, last = (sum(line["reward/mean"] for line in lines) / 5 for lines in (train[:5], train[-5:]))
    # of five equally frequent labels: always 2 earns (1 + 2 e^-0.5 + 2 e^-1) / 5, an even spread's RPS 1 - 0.2
    assert last > {"auto": 0.59, "rps": 0.80}[reward] + 0.1
    assert last > first + 0.05
    assert val[-1]["reward/mean"] > val[0]["reward/mean"]
    assert train[-1]["kl_loss"] > train[0]["kl_loss"] == pytest.approx(0, abs=1e-5)


def test_a_run_has_the_files_and_figures_of_the_other_methods(started, tmp_path) -> None:
    settings = settings_for(
        started, tmp_path, train={"mini_batch_size": 4, "micro_batch_size": 2, "eval_every": 2}
    )
    result = train_local(check_config(settings))
    lines = records(result.run.path)
    assert [(line["step"], line["split"]) for line in lines] == [
        (0, "val"), (1, "train"), (2, "train"), (2, "val"), (3, "train"), (4, "train"), (4, "val"),
    ]  # fmt: skip
    figures = {
        "loss",
        "reward/mean",
        "accuracy",
        "mae",
        "parse_rate",
        "kl_loss",
        "entropy",
        "grad_norm",
        "lr",
    }
    timing = {"timing_s/log_probs", "timing_s/update", "timing_s/step", "tokens_per_second"}
    assert set(lines[1]) == {"step", "split", "memory/peak_gib"} | figures | timing
    assert all(value is not None for value in lines[1].values())
    assert (result.run.path / "actor_latest").resolve().name == "checkpoint-8", "two updates a step"
    saved = load_saved_task(result.run.latest)
    assert saved is not None
    assert (saved.task.name, saved.max_response_length) == ("pointwise", 20)


def test_training_weighs_verdicts_as_the_judge_does(started, tmp_path) -> None:
    settings = settings_for(
        started, tmp_path, train={"batch_size": 40, "mini_batch_size": None, "max_steps": 1}
    )
    settings["reward"] = {"name": "rps"}
    line = records(train_local(check_config(settings)).run.path, "train")[0]
    task = PointwiseTask(trainer_reward(settings), instruction="Rate.")
    rows = load_rows(Path(settings["data"]["train"]))
    judge = LocalJudge(load_model(started).eval(), load_tokenizer(started))
    answers = judge.answer(task, [task.messages(row) for row in rows], mode="expected", max_new_tokens=20)
    assert line["parse_rate"] == pytest.approx(sum(a.mass for a in answers) / 40, abs=1e-5)
    scores = [
        task.score_distribution([p * a.mass for p in a.probabilities], task.truth(row))
        for a, row in zip(answers, rows, strict=True)
    ]
    assert line["reward/mean"] == pytest.approx(sum(scores) / 40, abs=1e-5)


def test_held_out_figures_of_a_scoring_rule_are_of_the_distribution(started, tmp_path) -> None:
    figures = {}
    for name in ("rps", "linear"):
        settings = settings_for(
            started, tmp_path, train={"max_steps": 1, "learning_rate": 1e-12}, reward={"name": name}
        )
        figures[name] = records(train_local(check_config(settings)).run.path, "val")[0]
    rps, linear = figures["rps"], figures["linear"]
    assert {"brier", "rps", "ece", "mass"} == set(rps) - set(linear)
    for name in ("accuracy", "mae", "parse_rate", "invalid"):
        assert rps[name] == linear[name], "the verdicts are the written ones either way"
    assert rps["reward/mean"] != linear["reward/mean"]
    # the reward is of the probabilities as they are, `rps` of those made relative to each other
    assert 0 < rps["reward/mean"] <= 1 - rps["rps"] + 1e-9


def test_a_broken_run_resumes_to_the_metrics_of_an_unbroken_one(started, tmp_path) -> None:
    train = {"mini_batch_size": 4, "max_steps": 8, "eval_every": 4, "save_every": 2}
    settings = settings_for(started, tmp_path, train=train)
    assert_resumes(settings, tmp_path)


def test_adapters_start_at_the_reference_and_can_be_judged_with(started, tmp_path) -> None:
    settings = settings_for(started, tmp_path, model={"lora": {"rank": 4, "alpha": 8}})
    run = train_local(check_config(settings)).run
    assert (run.latest / "adapter_model.safetensors").is_file()
    lines = records(run.path, "train")
    assert lines[0]["kl_loss"] == pytest.approx(0, abs=1e-7)
    assert lines[-1]["kl_loss"] > 1e-6
    assert (
        len(LocalJudge.load(run.latest).generate([[{"role": "user", "content": "hi"}]], max_new_tokens=4))
        == 1
    )


def test_bfloat16_computes_over_float32_weights(started, tmp_path) -> None:
    settings = settings_for(started, tmp_path)
    exact = records(train_local(check_config(settings)).run.path, "train")
    settings["model"]["dtype"] = "bfloat16"
    run = train_local(check_config(settings)).run
    rough = records(run.path, "train")
    assert rough[0]["reward/mean"] == pytest.approx(exact[0]["reward/mean"], rel=0.02)
    assert rough[0]["reward/mean"] != exact[0]["reward/mean"]
    assert rough[0]["kl_loss"] == pytest.approx(0, abs=1e-6), "model and reference round alike"
    assert load_model(run.latest, dtype=None).dtype == torch.float32


def test_without_a_kl_term_there_is_no_reference(started, tmp_path) -> None:
    settings = settings_for(started, tmp_path, loss={"kl_coef": 0.0})
    assert a_trainer(settings, tmp_path / "run").reference is None
    line = records(train_local(check_config(settings)).run.path, "train")[0]
    assert "kl_loss" not in line


def test_a_faint_format_is_said_in_the_log(tiny_model, tmp_path) -> None:
    settings = settings_for(tiny_model, tmp_path, train={"max_steps": 2})
    run = train_local(check_config(settings)).run.path
    log = (run / "logs" / "training.log").read_text(encoding="utf-8")
    assert log.count("the legal verdicts have a probability of") == 1


# -- refusals


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"rollout": {"temperature": 0.7}}, r"leave rollout\.temperature at 1"),
        ({"model": {"shared_prefix": False}}, r"leave model\.shared_prefix at true"),
        ({"reward": {"name": "preference"}}, "cannot score this task's verdicts"),
        ({"engine": "verl"}, "this is the local engine"),
    ],
    ids=str,
)
def test_what_has_no_exact_objective_is_refused_before_a_model_is_loaded(tmp_path, sections, said) -> None:
    settings = settings_for(tmp_path / "no-model", tmp_path, **sections)
    for refused in (check_rows, train_local):
        with pytest.raises(ConfigError, match=said):
            refused(check_config(settings))


class Percent(PointwiseTask):
    """A hundred and one and more verdicts."""

    name = "percent"
    scale = range(1000)


class Endless(PointwiseTask):
    """Verdicts without a number of them."""

    name = "endless"

    def verdicts(self) -> Any:
        return iter(range(5))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("Percent", "has 1000 legal verdicts, and method exact weighs from 2 to 128"),
        ("Endless", "cannot be counted"),
    ],
)
def test_verdicts_that_are_not_few_are_refused(tmp_path, task, said) -> None:
    settings = settings_for(tmp_path / "no-model", tmp_path, task=f"{__name__}:{task}")
    settings["data"]["val"] = None
    with pytest.raises(ConfigError, match=said):
        check_rows(check_config(settings))


def test_grpo_takes_verdicts_that_cannot_be_counted(tiny_model, tmp_path) -> None:
    settings = settings_for(tiny_model, tmp_path, method="grpo", task=f"{__name__}:Endless", rollout={"n": 2})
    settings["data"]["val"] = None
    settings["train"]["max_steps"] = 1
    assert len(records(train_local(check_config(settings)).run.path, "train")) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "not the plain one in every layer"),
        ({"final_logit_softcapping": 30.0}, "changes its logits after its head .final_logit_softcapping."),
        ({"output_router_logits": True}, "mixture of experts"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_packed_is_refused(tiny_model, change, said) -> None:
    model = load_model(tiny_model)
    check_model(model, "m")
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(ConfigError, match=f"m cannot be trained by method exact: .*{said}.*; use grpo"):
        check_model(model, "m")


@pytest.mark.parametrize("name", ["rps", "log_score"])
def test_grpo_refuses_a_reward_of_distributions(tmp_path, name) -> None:
    settings = settings_for(tmp_path, tmp_path, method="grpo", reward={"name": name})
    with pytest.raises(ConfigError, match=f"reward.name {name} scores a distribution .* use method exact"):
        check_config(settings)
    settings["method"] = "sft"  # which pays no reward, and is measured by it
    check_config(settings)


def by_source(predicted: int, true: int, data_source: str) -> float:
    return float(predicted == true) if data_source == "trusted" else 0.5


def test_a_reward_by_the_rows_source_is_refused(tmp_path) -> None:
    """One table of rewards serves all rows, and would ask it about none of their sources."""
    settings = settings_for(tmp_path / "no-model", tmp_path, reward={"name": f"{__name__}:by_source"})
    with pytest.raises(ConfigError, match="asks for the row's data_source"):
        check_rows(check_config(settings))


def test_figures_are_gathered_in_one_order_in_all_processes() -> None:
    """Those of answers without a verdict come in another one (`Objective.none`)."""
    gathered = []

    def compute(*names: str) -> None:
        figures = {name: torch.tensor(float(len(name))) for name in names}
        gather = SimpleNamespace(gather=lambda values: (gathered.append(values.tolist()), values)[1])
        trainer = SimpleNamespace(
            _loss=lambda model, inputs: (torch.tensor(0.0), figures),
            accelerator=gather,
            _figures=defaultdict(list),
        )
        ExactTrainer.compute_loss(trainer, None, None)
        assert dict(trainer._figures) == {name: [float(len(name))] for name in names}

    compute("reward", "entropy", "mae", "kl")
    compute("reward", "mae", "kl", "entropy")
    assert gathered[0] == gathered[1]
