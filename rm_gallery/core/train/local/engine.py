"""`train_local`: from a training configuration to a trained folder, by TRL's trainers."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from accelerate import PartialState

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.scalar import is_scalar_model
from rm_gallery.core.judge.scalar_card import attributes_of
from rm_gallery.core.models.require import require
from rm_gallery.core.models.weights import load_model, quiet_transformers, resolve_dtype
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.local.answers import reasons, with_reasoning
from rm_gallery.core.train.local.bradley_terry import BradleyTerryJob
from rm_gallery.core.train.local.exact import ExactJob
from rm_gallery.core.train.local.job import Job
from rm_gallery.core.train.local.reasoned import ReasonedJob
from rm_gallery.core.train.local.recorder import Recorder
from rm_gallery.core.train.local.regression import RegressionJob
from rm_gallery.core.train.local.trainers import world_size
from rm_gallery.core.train.local.verdicts import VerdictJob, read_examples
from rm_gallery.core.train.run_folder import RunFolder, is_main_process

logger = logging.getLogger("rm_gallery.train")


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run lies, how long it was, and what it was trained on."""

    run: RunFolder
    steps: int
    train_rows: int
    unit: str
    """What they are called: rows, or pairs."""
    overlong: int
    """Training rows left out for their length."""
    overlong_val: int
    """Held-out rows left out for their length."""
    notes: tuple[str, ...] = ()
    """Sentences on all that was left out."""


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
    job = _job(config)  # before the model is loaded, so that a bad row is known at once
    run = found or RunFolder.create(config, path)
    with _logged(run), quiet_transformers(), _deterministic():
        for note in job.notes:
            logger.warning(note)
        steps = len(job.order) // config.train.batch_size
        logger.info("%d steps on %d %s", steps, job.rows, job.unit)
        job = replace(job, config=_with_one_dtype(job.config, run, resume=resume))
        trainer = job.trainer(run, _start(config, run, job.tokenizer, resume=resume))
        _run(trainer, job, run, resume, describe or config.method)
        # model, optimizer and callbacks refer to each other in circles: gone now, not some time
        del trainer
        gc.collect()
    return TrainResult(run, steps, job.rows, job.unit, job.overlong, job.overlong_val, tuple(job.notes))


def check_rows(config: TrainConfig) -> list[str]:
    """Check all that can be known without a model: the rows of `data.train` and `data.val` above all.

    Returns:
        Sentences on what is left out of them.

    Raises:
        ConfigError, MissingDependency: this engine cannot do what is asked.
        DataError: a file or a row cannot be used; names both.
    """
    check_available(config)
    if config.method == "bradley_terry":
        return BradleyTerryJob.read(config)[2]
    if config.method == "regression":
        return RegressionJob.read(config)[2]
    return with_reasoning(config, read_examples(config)[1])[1]


def _job(config: TrainConfig) -> Job:
    check_available(config)
    if config.method == "bradley_terry":
        return BradleyTerryJob.prepare(config)
    if config.method == "regression":
        return RegressionJob.prepare(config)
    if config.method == "exact":
        return (ReasonedJob if reasons(config) else ExactJob).prepare(config)
    return VerdictJob.prepare(config)


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
    if config.method in ("bradley_terry", "regression") and (
        config.prompt.think or config.prompt.instruction
    ):
        raise ConfigError(
            f"method {config.method} trains scores of the bare conversation: leave prompt.think and "
            "prompt.instruction out"
        )
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


def _run(trainer: Any, job: Job, run: RunFolder, resume: bool, describe: str) -> None:
    config = job.config
    updates = config.train.batch_size // config.mini_batch_size
    checkpoint = run.newest_checkpoint() if resume else None
    resumed_at = int(checkpoint.name.split("-")[1]) if checkpoint else None
    run.forget_after(resumed_at // updates if resumed_at is not None else -1)
    trainer.resumed_at = resumed_at
    recorder = Recorder(
        run,
        lambda folder: job.save_card(folder, trainer),
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


def _with_one_dtype(config: TrainConfig, run: RunFolder, *, resume: bool) -> TrainConfig:
    """`dtype: auto` measures, and may find otherwise when a run goes on, or in another process: the run's first stands in
    its folder."""
    if config.model.dtype != "auto":
        return config
    file = run.path / "dtype"
    if is_main_process() and not (resume and file.is_file()):
        part = file.with_suffix(".part")
        part.write_text(str(resolve_dtype("auto")).removeprefix("torch."), encoding="utf-8")
        part.replace(file)
    PartialState().wait_for_everyone()
    found = config.model.model_copy(update={"dtype": file.read_text(encoding="utf-8")})
    return config.model_copy(update={"model": found})


def _start(config: TrainConfig, run: RunFolder, tokenizer: Any, *, resume: bool) -> str:
    """The folder to start from: `model.path`, or for adapters a copy merged into their base.

    The trainer loads the reference model, and an adapter its base, by the name in the configuration; for merged
    weights that would be the base without them.
    """
    if not (Path(config.model.path).expanduser() / "adapter_config.json").is_file():
        return config.model.path
    folder = run.path / "start"
    if is_main_process() and not (resume and folder.is_dir()):
        shutil.rmtree(folder, ignore_errors=True)  # of a run that ended before its first checkpoint
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        load_model(
            config.model.path,
            trust_remote_code=config.model.trust_remote_code,
            classifier=is_scalar_model(config.model.path),
            labels=len(attributes_of(config.model.path)) or 1,
        ).save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.replace(folder)
    PartialState().wait_for_everyone()
    return str(folder)
