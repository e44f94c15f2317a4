"""`train_local`: from a training configuration to a trained folder, by TRL's trainers."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from accelerate import PartialState

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate.predictions import task_kind
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.require import require
from rm_gallery.core.models.weights import load_model, load_tokenizer, quiet_transformers
from rm_gallery.core.tasks import Task
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.local.heldout import HeldOut
from rm_gallery.core.train.local.recorder import Recorder
from rm_gallery.core.train.local.trainers import Plan, grpo_trainer, in_bfloat16, sft_trainer, world_size
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
    if world_size() > 1 and path is None:
        raise ConfigError("several processes must agree on the run's folder: name it with --out DIR")
    found = RunFolder.find(config, path) if resume else None
    RunFolder.check_free(None if resume else path)
    asked = _ask(config)  # before the model is loaded, so that a bad row is known at once
    run = found or RunFolder.create(config, path)
    with _logged(run), quiet_transformers(), _deterministic():
        for kind, out in (("training", asked.overlong), ("held-out", asked.overlong_val)):
            if out:
                logger.warning("%d %s prompts are over data.max_prompt_length and left out", out, kind)
        start = _start(config, run, asked.tokenizer)
        model = load_model(
            start, attention=config.model.attention, trust_remote_code=config.model.trust_remote_code
        )
        plan = Plan(config, asked.task, asked.tokenizer, asked.train, asked.order, bool(asked.val), run)
        trainer = (grpo_trainer if config.method == "grpo" else sft_trainer)(plan, model)
        _run(trainer, plan, asked.val, resume, describe or config.method)
        # model, optimizer and callbacks refer to each other in circles: gone now, not some time
        del trainer, model
        gc.collect()
    steps = len(asked.order) // config.train.batch_size
    return TrainResult(run, steps, len(asked.train), asked.overlong, asked.overlong_val)


@dataclass(frozen=True)
class _Asked:
    """The rows as questions with their truths, and the order of training."""

    task: Task[Any]
    tokenizer: Any
    train: list[Example]
    val: list[Example]
    order: list[int]
    overlong: int
    overlong_val: int


def check_rows(config: TrainConfig) -> tuple[Task[Any], list[Example], list[Example]]:
    """All that can be known without a model: the task and its questions on `data.train` and `data.val`.

    Raises:
        ConfigError, MissingDependency: this engine cannot do what is asked.
        DataError: a file or a row cannot be used; names both.
    """
    check_available(config)
    task = config.build_task()
    if config.data.val is not None:
        task_kind(task)  # held-out rows can be measured, or this says why not
    if config.method == "sft" and task.think:
        raise ConfigError("method sft trains the verdict alone, without reasoning: set prompt.think to false")

    def examples(file: Path | None) -> list[Example]:
        if file is None:
            return []
        rows = load_rows(file)
        try:
            return build_examples(task, rows, limit=config.data.limit, seed=config.train.seed)
        except DataError as error:
            raise DataError(f"{file} does not fit the task {task.name}: {error}") from None

    return task, examples(config.data.train), examples(config.data.val)


def _ask(config: TrainConfig) -> _Asked:
    task, train, val = check_rows(config)
    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    asker = LocalJudge(None, tokenizer, reasoning_model=config.model.reasoning_model)

    def count(messages: list[dict[str, str]]) -> int:
        return len(tokenizer(asker.render(messages), add_special_tokens=False)["input_ids"])

    limit = config.data.max_prompt_length
    train, overlong = drop_overlong(train, count, limit)
    val, overlong_val = drop_overlong(val, count, limit) if val else (val, 0)
    by_prompt = config.data.shuffle == "prompts"
    order = prompt_order(
        [task.cluster(example.row) if by_prompt else i for i, example in enumerate(train)],
        config.train.batch_size,
        epochs=config.train.epochs,
        max_steps=config.train.max_steps,
        seed=config.train.seed,
    )
    return _Asked(task, tokenizer, train, val, order, overlong, overlong_val)


@contextmanager
def _deterministic() -> Iterator[None]:
    """On a CPU, let no operation add up its parts in whatever order its threads come: the same seed, the same bits.

    A GPU's kernels have no such promise to keep at a bearable cost.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(before or not torch.cuda.is_available(), warn_only=True)
    # a guard against reading what was never written; it writes every new tensor twice, an eighth of a step
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled


@contextmanager
def _logged(run: RunFolder) -> Iterator[None]:
    """Write the log to the run's folder meanwhile; no bar but ours."""
    ours = logging.getLogger("rm_gallery")
    handler = run.open_log()
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    were_off = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        ours.removeHandler(handler)
        handler.close()
        if not were_off:
            datasets.enable_progress_bars()


def check_available(config: TrainConfig) -> None:
    """Refuse what this engine cannot do, before anything is loaded. Raises `ConfigError`, `MissingDependency`."""
    if config.engine != "local":
        raise ConfigError(f"this is the local engine, and the configuration asks for {config.engine!r}")
    if config.method not in ("grpo", "sft"):
        raise ConfigError(f"method {config.method!r} is not available with the local engine; use grpo or sft")
    for name in config.track:
        if name in ("mlflow", "swanlab"):
            raise ConfigError(f"track: {name} works with engine verl only")
        if name != "console":
            require("track", name)
    if torch.cuda.device_count() > 1 and world_size() == 1:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs are visible and one process was started: use "
            "`accelerate launch -m rm_gallery train … --out DIR`, or set CUDA_VISIBLE_DEVICES=0"
        )


def _run(trainer: Any, plan: Plan, val: Sequence[Example], resume: bool, describe: str) -> None:
    config, run = plan.config, plan.run
    updates = config.train.batch_size // config.mini_batch_size
    checkpoint = run.newest_checkpoint() if resume else None
    resumed_at = int(checkpoint.name.split("-")[1]) if checkpoint else None
    run.forget_after(resumed_at // updates if resumed_at is not None else -1)
    trainer.resumed_at = resumed_at
    if val:
        trainer.held_out = HeldOut(
            plan.task,
            val,
            plan.tokenizer,
            max_new_tokens=config.rollout.max_response_length,
            batch_size=config.rollout.eval_batch_size,
            reasoning_model=config.model.reasoning_model,
            autocast=torch.bfloat16 if in_bfloat16(config) else None,
        )
    recorder = Recorder(
        run,
        plan.task,
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
