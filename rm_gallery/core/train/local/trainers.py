"""From a training configuration to TRL's trainers and their arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from peft import LoraConfig
from trl import GRPOConfig, SFTConfig

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.weights import resolve_dtype
from rm_gallery.core.tasks import Task
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.local.answers import Written
from rm_gallery.core.train.local.grpo import JudgeGRPOTrainer, RewardFunction, SharedPrefixGRPOTrainer
from rm_gallery.core.train.local.sft import JudgeSFTTrainer, SharedPrefixSFTTrainer
from rm_gallery.core.train.rows import Example
from rm_gallery.core.train.run_folder import RunFolder

_NOT_LEARNED = -100


@dataclass(frozen=True)
class Plan:
    """What a trainer is built from.

    Attributes:
        train: the training examples.
        order: their indices in the order of training, `batch_size` for each step.
        evaluates: whether there are held-out rows.
        run: where it writes.
    """

    config: TrainConfig
    task: Task[Any]
    tokenizer: Any
    train: Sequence[Example]
    order: Sequence[int]
    evaluates: bool
    run: RunFolder


def grpo_trainer(plan: Plan, model: Any, opening: str = "") -> Any:
    """TRL's GRPO trainer for the plan, with the shared prompt where `model.shared_prefix` asks for it.

    `opening` is what the chat template writes of each answer.
    """
    config, train = plan.config, plan.train
    world = world_size()
    n = config.rollout.n
    micro = micro_batch(config)
    arguments = GRPOConfig(
        **common_arguments(config, plan.run, plan.evaluates),
        per_device_train_batch_size=micro * n,
        per_device_eval_batch_size=n,
        gradient_accumulation_steps=config.mini_batch_size // (micro * world),
        steps_per_generation=config.train.batch_size // (micro * world),
        num_generations=n,
        max_completion_length=config.rollout.max_response_length,
        temperature=config.rollout.temperature,
        shuffle_dataset=False,  # the order is ours, the same for both engines
        beta=config.loss.kl_coef,
        epsilon=config.loss.clip,
        loss_type="dapo",  # TRL's name for the mean over tokens; `JudgeGRPOTrainer` makes them the mini-batch's
        use_bias_correction_kl=False,  # the KL term is k3 itself, as in verl, not weighted by the ratio
        scale_rewards="group" if config.loss.advantage == "group_std" else "none",
        chat_template_kwargs={"enable_thinking": config.model.reasoning_model},
        log_completions=False,
    )
    columns = {"prompt": [train[i].messages for i in plan.order], "index": list(plan.order)}
    dataset = datasets.Dataset.from_dict(columns)
    trainer_class = SharedPrefixGRPOTrainer if config.model.shared_prefix else JudgeGRPOTrainer
    return trainer_class(
        model,
        RewardFunction(plan.task, train, opening),
        args=arguments,
        train_dataset=dataset,
        eval_dataset=dataset.select([0]) if plan.evaluates else None,
        processing_class=plan.tokenizer,
        peft_config=lora_config(config),
    )


def sft_trainer(plan: Plan, model: Any, answers: Sequence[Written]) -> Any:
    """TRL's supervised trainer for the plan; `answers` are those to `plan.train`."""
    config = plan.config
    arguments = SFTConfig(
        **common_arguments(config, plan.run, plan.evaluates),
        per_device_train_batch_size=micro_batch(config),
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=config.mini_batch_size // (micro_batch(config) * world_size()),
        max_length=None,  # what is too long was left out, and not cut
        train_sampling_strategy="sequential",
        include_num_input_tokens_seen="non_padding",
    )
    rows = [answers[i] for i in plan.order]
    dataset = datasets.Dataset.from_dict(
        {
            "input_ids": [row.prompt + row.answer for row in rows],
            "labels": [[_NOT_LEARNED] * len(row.prompt) + row.answer for row in rows],
        }
    )
    trainer_class = SharedPrefixSFTTrainer if config.model.shared_prefix else JudgeSFTTrainer
    return trainer_class(
        model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=dataset.select([0]) if plan.evaluates else None,
        processing_class=plan.tokenizer,
        peft_config=lora_config(config),
    )


def common_arguments(
    config: TrainConfig, run: RunFolder, evaluates: bool, *, best: tuple[str, bool] = ("eval_reward", True)
) -> dict[str, Any]:
    """The arguments that all trainers take. Steps are batches of prompts; transformers counts updates.

    `best` names the held-out figure of the best checkpoint, and says whether more of it is better.
    """
    train = config.train
    updates = train.batch_size // config.mini_batch_size
    never = 10**9
    return {
        "output_dir": str(run.path),
        "num_train_epochs": 1,  # the dataset is the whole run, laid out in order
        "learning_rate": train.learning_rate,
        # transformers' "constant" ignores the warm-up
        "lr_scheduler_type": "constant_with_warmup" if train.scheduler == "constant" else train.scheduler,
        "warmup_steps": train.warmup_steps * updates,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "bf16": in_bfloat16(config),
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": config.model.gradient_checkpointing,  # TRL's default is on
        "trust_remote_code": config.model.trust_remote_code,
        "logging_steps": updates,
        "logging_nan_inf_filter": False,  # a NaN loss must be seen
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": (train.eval_every or never) * updates,
        "eval_on_start": evaluates,
        "metric_for_best_model": best[0] if evaluates else None,
        "greater_is_better": best[1] if evaluates else None,
        "save_strategy": "steps",
        "save_steps": (train.save_every or never) * updates,
        "save_total_limit": None,  # the recorder rotates, once the new checkpoint is complete and linked
        "seed": train.seed,
        "data_seed": train.seed,
        "report_to": [name for name in config.track if name != "console"],
        "run_name": run.path.name,
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
    }


def in_bfloat16(config: TrainConfig) -> bool:
    return resolve_dtype(config.model.dtype) == torch.bfloat16


def lora_config(config: TrainConfig, task_type: str = "CAUSAL_LM", **options: Any) -> LoraConfig | None:
    """The YAML's adapters for PEFT; None where it asks for none."""
    lora = config.model.lora
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type=task_type,
        **options,
    )


def within_budget(
    config: TrainConfig, order: Sequence[int], loads: Sequence[int], *, padded: bool
) -> tuple[TrainConfig, list[str]]:
    """The configuration with `train.micro_batch_tokens` made a `micro_batch_size`, and what to say of it.

    That is the largest share of a mini-batch none of whose passes, in this order, has more tokens than the budget; one
    prompt where each share has. `loads` are the tokens of each training row with its answers; a pass that is `padded`
    has the largest of them for each row.
    """
    budget = config.train.micro_batch_tokens
    if budget is None:
        return config, []

    def heaviest(size: int) -> int:
        passes = ([loads[i] for i in order[at : at + size]] for at in range(0, len(order), size))
        return max(size * max(each) if padded else sum(each) for each in passes)

    share = max(1, config.mini_batch_size // world_size())
    fitting = (size for size in range(share, 0, -1) if share % size == 0 and heaviest(size) <= budget)
    size = next(fitting, 1)
    train = config.train.model_copy(update={"micro_batch_size": size, "micro_batch_tokens": None})
    tokens = heaviest(size)
    over = ", which is over train.micro_batch_tokens" if tokens > budget else ""
    said = f"a pass takes {size} {'prompt' if size == 1 else 'prompts'}: {tokens:,} tokens at most{over}"
    return config.model_copy(update={"train": train}), [said]


def micro_batch(config: TrainConfig) -> int:
    """Prompts per pass on one process. Raises `ConfigError` where they do not divide a mini-batch."""
    world = world_size()
    micro = config.train.micro_batch_size or max(1, config.mini_batch_size // world)
    if config.mini_batch_size % (micro * world):
        raise ConfigError(
            f"train.mini_batch_size ({config.mini_batch_size}) must be a multiple of train.micro_batch_size x "
            f"processes ({micro} x {world})"
        )
    return micro


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
