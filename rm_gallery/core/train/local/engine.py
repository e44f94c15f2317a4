"""`train_local`: from a training configuration to a trained folder, by TRL's trainers."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from accelerate import PartialState
from peft import LoraConfig
from trl import GRPOConfig, SFTConfig

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.evaluate.predictions import task_kind
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.require import require
from rm_gallery.core.models.weights import load_model, load_tokenizer, quiet_transformers, resolve_dtype
from rm_gallery.core.tasks import Task
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.local.grpo import JudgeGRPOTrainer, RewardFunction, SharedPrefixGRPOTrainer
from rm_gallery.core.train.local.heldout import HeldOut
from rm_gallery.core.train.local.recorder import Recorder
from rm_gallery.core.train.local.sft import JudgeSFTTrainer
from rm_gallery.core.train.rows import Example, build_examples, drop_overlong
from rm_gallery.core.train.run_folder import RunFolder, is_main_process
from rm_gallery.core.train.sampling import prompt_order

logger = logging.getLogger("rm_gallery.train")


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run lies and how long it was."""

    run: RunFolder
    steps: int
    train_rows: int
    overlong: int
    """Training prompts left out for their length."""
    overlong_val: int
    """Held-out prompts left out for their length."""


def train_local(
    config: TrainConfig, *, resume: bool = False, path: Path | None = None, describe: str | None = None
) -> TrainResult:
    """Train as `config` says and return the run.

    Args:
        resume: go on with the run at `path`, or the newest one of `config.output_dir`, from its newest
            complete checkpoint. The metrics of the resumed run equal those of an unbroken one.
        path: the run's folder; by default one named by the time under `config.output_dir`.
        describe: the label of the progress bar.

    Raises:
        ConfigError: something in the configuration cannot be done here.
        DataError: a row has no legal label, or no prompt fits `data.max_prompt_length`.
    """
    check_available(config)
    task = config.build_task()
    if config.data.val is not None:
        task_kind(task)  # held-out rows can be measured, or this says why not
    if config.method == "sft" and task.think:
        raise ConfigError("method sft trains the verdict alone, without reasoning: set prompt.think to false")
    if _world_size() > 1 and path is None:
        raise ConfigError("several processes must agree on the run's folder: name it with --out DIR")
    # the rows are checked before the model is loaded
    train = build_examples(
        task, load_rows(config.data.train), limit=config.data.limit, seed=config.train.seed
    )
    val = _held_out_rows(config, task)
    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)

    asker = LocalJudge(None, tokenizer, reasoning_model=config.model.reasoning_model)

    def count(messages: list[dict[str, str]]) -> int:
        return len(tokenizer(asker.render(messages), add_special_tokens=False)["input_ids"])

    train, overlong = drop_overlong(train, count, config.data.max_prompt_length)
    val, overlong_val = drop_overlong(val, count, config.data.max_prompt_length) if val else (val, 0)
    by_prompt = config.data.shuffle == "prompts"
    order = prompt_order(
        [task.cluster(example.row) if by_prompt else i for i, example in enumerate(train)],
        config.train.batch_size,
        epochs=config.train.epochs,
        max_steps=config.train.max_steps,
        seed=config.train.seed,
    )
    run = RunFolder.find(config, path) if resume else RunFolder.create(config, path)
    handler = run.open_log()
    logging.getLogger("rm_gallery").addHandler(handler)
    logging.getLogger("rm_gallery").setLevel(logging.INFO)
    were_off = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # ours is the one to look at
    try:
        for name, left, out in (("training", train, overlong), ("held-out", val, overlong_val)):
            if out:
                logger.warning(
                    "%d of %d %s prompts are over data.max_prompt_length", out, len(left) + out, name
                )
        build = _grpo if config.method == "grpo" else _sft
        with quiet_transformers():
            model = load_model(
                _start(config, run, tokenizer), trust_remote_code=config.model.trust_remote_code
            )
            trainer = build(config, task, model, tokenizer, train, order, bool(val), run)
            _run(trainer, config, task, tokenizer, val, run, resume, describe or config.method)
    finally:
        logging.getLogger("rm_gallery").removeHandler(handler)
        handler.close()
        if not were_off:
            datasets.enable_progress_bars()
    return TrainResult(run, len(order) // config.train.batch_size, len(train), overlong, overlong_val)


def check_available(config: TrainConfig) -> None:
    """Refuse what this engine cannot do, before anything is loaded. Raises `ConfigError`, `MissingDependency`."""
    if config.engine != "local":
        raise ConfigError(f"engine {config.engine!r} is not available in this version; use --engine local")
    if config.method not in ("grpo", "sft"):
        raise ConfigError(f"method {config.method!r} is not available with the local engine; use grpo or sft")
    for name in config.track:
        if name in ("mlflow", "swanlab"):
            raise ConfigError(f"track: {name} works with engine verl only")
        if name != "console":
            require("track", name)
    if torch.cuda.device_count() > 1 and _world_size() == 1:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs are visible and one process was started: use "
            "`accelerate launch -m rm_gallery train … --out DIR`, or set CUDA_VISIBLE_DEVICES=0"
        )


def _run(
    trainer: Any,
    config: TrainConfig,
    task: Task[Any],
    tokenizer: Any,
    val: Sequence[Example],
    run: RunFolder,
    resume: bool,
    describe: str,
) -> None:
    updates = config.train.batch_size // config.mini_batch_size
    checkpoint = run.newest_checkpoint() if resume else None
    resumed_at = int(checkpoint.name.split("-")[1]) if checkpoint else None
    run.forget_after(resumed_at // updates if resumed_at is not None else -1)
    trainer.resumed_at = resumed_at
    if val:
        trainer.held_out = HeldOut(
            task,
            val,
            tokenizer,
            max_new_tokens=config.rollout.max_response_length,
            batch_size=config.rollout.eval_batch_size,
            reasoning_model=config.model.reasoning_model,
            autocast=torch.bfloat16 if _in_bfloat16(config) else None,
        )
    recorder = Recorder(
        run,
        task,
        config.task,
        reasoning_model=config.model.reasoning_model,
        max_response_length=config.rollout.max_response_length,
        updates_per_step=updates,
        keep_checkpoints=config.train.keep_checkpoints,
        describe=describe,
    )
    recorder.trainer = trainer
    # first, so that the trackers' callbacks see the renamed figures; ours replaces the tqdm bar
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    trainer.callback_handler.callbacks.insert(0, recorder)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        recorder.close()


def _grpo(
    config: TrainConfig,
    task: Task[Any],
    model: Any,
    tokenizer: Any,
    train: Sequence[Example],
    order: Sequence[int],
    evaluates: bool,
    run: RunFolder,
) -> Any:
    world = _world_size()
    n = config.rollout.n
    micro = _micro_batch(config)
    arguments = GRPOConfig(
        **_common(config, evaluates, run),
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
    columns = {"prompt": [train[i].messages for i in order], "index": list(order)}
    dataset = datasets.Dataset.from_dict(columns)
    trainer_class = SharedPrefixGRPOTrainer if config.model.shared_prefix else JudgeGRPOTrainer
    return trainer_class(
        model,
        RewardFunction(task, train),
        args=arguments,
        train_dataset=dataset,
        eval_dataset=dataset.select([0]) if evaluates else None,
        processing_class=tokenizer,
        peft_config=_lora(config),
    )


def _sft(
    config: TrainConfig,
    task: Task[Any],
    model: Any,
    tokenizer: Any,
    train: Sequence[Example],
    order: Sequence[int],
    evaluates: bool,
    run: RunFolder,
) -> Any:
    arguments = SFTConfig(
        **_common(config, evaluates, run),
        per_device_train_batch_size=_micro_batch(config),
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=config.mini_batch_size // (_micro_batch(config) * _world_size()),
        max_length=config.data.max_prompt_length + config.rollout.max_response_length,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        include_num_input_tokens_seen="non_padding",
    )
    answers = [[{"role": "assistant", "content": task.format(train[i].truth)}] for i in order]
    dataset = datasets.Dataset.from_dict(
        {"prompt": [train[i].messages for i in order], "completion": answers}
    )
    return JudgeSFTTrainer(
        model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=dataset.select([0]) if evaluates else None,
        processing_class=tokenizer,
        peft_config=_lora(config),
    )


def _common(config: TrainConfig, evaluates: bool, run: RunFolder) -> dict[str, Any]:
    """The arguments that both trainers take. Steps are batches of prompts; transformers counts updates."""
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
        "bf16": _in_bfloat16(config),
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": config.model.gradient_checkpointing,  # TRL's default is on
        "trust_remote_code": config.model.trust_remote_code,
        "logging_steps": updates,
        "logging_nan_inf_filter": False,  # a NaN loss must be seen
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": (train.eval_every or never) * updates,
        "eval_on_start": evaluates,
        "metric_for_best_model": "eval_reward" if evaluates else None,
        "greater_is_better": True if evaluates else None,
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


def _held_out_rows(config: TrainConfig, task: Task[Any]) -> list[Example]:
    if config.data.val is None:
        return []
    rows = load_rows(config.data.val)
    return build_examples(task, rows, limit=config.data.limit, seed=config.train.seed)


def _start(config: TrainConfig, run: RunFolder, tokenizer: Any) -> str:
    """The folder to start from: `model.path`, or for adapters a copy merged into their base.

    The trainer loads the reference model, and an adapter its base, by the name in the configuration; for merged
    weights that would be the base without them.
    """
    if not (Path(config.model.path).expanduser() / "adapter_config.json").is_file():
        return config.model.path
    folder = run.path / "start"
    if is_main_process() and not folder.is_dir():
        part = folder.with_suffix(".part")
        load_model(config.model.path, trust_remote_code=config.model.trust_remote_code).save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.replace(folder)
    PartialState().wait_for_everyone()
    return str(folder)


def _in_bfloat16(config: TrainConfig) -> bool:
    return resolve_dtype(config.model.dtype) == torch.bfloat16


def _lora(config: TrainConfig) -> LoraConfig | None:
    lora = config.model.lora
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def _micro_batch(config: TrainConfig) -> int:
    """Prompts per pass on one process. Raises `ConfigError` where they do not divide a mini-batch."""
    world = _world_size()
    micro = config.train.micro_batch_size or max(1, config.mini_batch_size // world)
    if config.mini_batch_size % (micro * world):
        raise ConfigError(
            f"train.mini_batch_size ({config.mini_batch_size}) must be a multiple of train.micro_batch_size x "
            f"processes ({micro} x {world})"
        )
    return micro


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
