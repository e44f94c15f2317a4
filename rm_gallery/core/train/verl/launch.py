"""`train_verl`: from a training configuration to a run of verl, on this machine's Ray or inside a Ray job."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.rewards import load_object
from rm_gallery.core.tasks.saved import save_task
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.run_folder import RunFolder
from rm_gallery.core.train.verl import check, cpu
from rm_gallery.core.train.verl.installed import require_verl
from rm_gallery.core.train.verl.metrics import Mirror
from rm_gallery.core.train.verl.overrides import Machine, build_overrides, to_words
from rm_gallery.core.train.verl.process import command, follow
from rm_gallery.core.train.verl.sizing import model_size

Record = Mapping[str, Any]
LATEST = "latest_checkpointed_iteration.txt"
"""verl writes it once a checkpoint is complete."""


@dataclass(frozen=True)
class VerlPlan:
    """A run as it will be started.

    Attributes:
        words: Hydra's overrides for `python -m verl.trainer.main_ppo`.
        environment: the variables that go with them.
        resolved: verl's whole configuration with these overrides.
        notes: what was decided for this machine, a sentence each.
    """

    config: TrainConfig
    run: Path
    machine: Machine
    words: list[str]
    environment: dict[str, str]
    resolved: Any
    notes: list[str]


def plan_verl(config: TrainConfig, run: Path, *, elsewhere: bool = False) -> VerlPlan:
    """Compose verl's configuration and check it against verl's own; nothing is written or started.

    `elsewhere`: for another machine than this one, whose GPUs are taken on trust.

    Raises:
        MissingDependency, ConfigError: verl is not installed, or not the version that this was made for;
            a setting cannot be honoured; every problem of verl's configuration, in one message.
    """
    require_verl()
    run = run.absolute()
    machine, notes = find_machine(config, elsewhere=elsewhere)
    size = model_size(config.model.path)
    environment = {"HYDRA_FULL_ERROR": "1", "TENSORBOARD_DIR": str(run / "tensorboard")}
    environment["VERL_FILE_LOGGER_PATH"] = str(_next_log(run))
    if machine.device == "cpu":
        environment |= cpu.environment()
    overrides = build_overrides(config, run, machine, size)
    if (run / LATEST).is_file() and "trainer.val_before_train" not in config.verl:
        # verl would judge the held-out rows anew before it goes on, at a step that an unbroken run does not
        overrides["trainer.val_before_train"] = False
    if machine.attached:  # the cluster is what it is; Ray refuses to be told
        overrides = {key: v for key, v in overrides.items() if not key.lstrip("+").startswith("ray_kwargs.")}
    else:  # and not a cluster that happens to be up on this machine
        overrides["+ray_kwargs.ray_init.address"] = "local"
    for name, value in environment.items():
        overrides[f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}"] = value
    words = to_words(overrides)
    resolved = check.compose(words)
    if found := check.problems(resolved, words, context=size.context):
        raise ConfigError("verl would not run this: " + "; ".join(found))
    # where Hydra keeps its own record; not part of verl's configuration
    words += [f"hydra.run.dir={run / 'verl' / 'hydra'}", "hydra.output_subdir=null"]
    return VerlPlan(config, run, machine, words, environment, resolved, notes)


def train_verl(
    config: TrainConfig,
    *,
    resume: bool = False,
    path: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    begin: Callable[[int], None] = lambda _: None,
    record: Callable[[Record], None] = lambda _: None,
) -> RunFolder:
    """Train with verl on this machine, or on the cluster whose job this process is; returns the finished run.

    Args:
        resume: go on with the run at `path`, or the newest of `config.output_dir`, from its last checkpoint.
        path: the run's folder; every node must see it.
        say: is given a sentence where something was decided.
        begin: is given the number of steps, once all is checked.
        record: is given each line of `metrics.jsonl` as it comes.

    Raises:
        ConfigError, MissingDependency: as `plan_verl`.
        DataError: a row cannot be trained on, or no prompt is short enough.
        RunFailed, Stopped: the run ended before its last step.
    """
    found = RunFolder.find(config, path) if resume else None
    RunFolder.check_free(None if resume else path)
    where = found.path if found else path or RunFolder.new_path(config)
    plan = plan_verl(config, where)
    checked = check_rows(plan)  # all before anything is written
    for note in [*plan.notes, *checked.notes]:
        say(note)
    run = found or RunFolder.create(config, where)
    write_plan(plan)
    begin(checked.steps)
    mirror = Mirror(run)
    if lost := lost_figures(run, mirror):
        say(lost)

    def poll(last: bool) -> None:
        for line in mirror.poll(last=last):
            record(line)

    follow(
        command(plan.words), environment=plan.environment, log=run.path / "logs" / "training.log", poll=poll
    )
    return run


def lost_figures(run: RunFolder, mirror: Mirror) -> str | None:
    """A sentence on the step that a resumed run goes on after, where its figures are lost.

    verl saves before it judges the held-out rows and writes the step's line; a run that ends in between has the
    checkpoint without the figures, and they are not worth training the step again.
    """
    if not (run.path / LATEST).is_file():
        return None
    step = int((run.path / LATEST).read_text().strip())
    if mirror.has_line(step):
        return None
    return (
        f"step {step} was saved, but the run ended before verl wrote its figures: metrics.jsonl goes on at step "
        f"{step + 1}; `rmg merge {run.path / f'global_step_{step}'} DIR` makes it a model for `rmg eval`"
    )


def write_plan(plan: VerlPlan) -> None:
    """`verl_config.yaml`, and the card that the dataset, the reward and every checkpoint take the task from."""
    (plan.run / "verl").mkdir(parents=True, exist_ok=True)
    write_resolved(plan, plan.run)
    config = plan.config
    save_task(
        plan.run,
        config.task,
        config.build_task(),
        reasoning_model=config.model.reasoning_model,
        max_response_length=config.rollout.max_response_length,
    )


def write_resolved(plan: VerlPlan, folder: Path) -> Path:
    """Write verl's whole configuration as `verl_config.yaml`."""
    from omegaconf import OmegaConf

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "verl_config.yaml"
    file.write_text(OmegaConf.to_yaml(plan.resolved), encoding="utf-8")
    return file


def find_machine(config: TrainConfig, *, elsewhere: bool = False) -> tuple[Machine, list[str]]:
    """Where this will run: as the `verl:` section says, else as found here, and sentences on what was found.

    Raises:
        ConfigError: GPUs are needed and there are none.
    """
    import torch

    said = config.verl
    attached = bool(os.environ.get("RAY_ADDRESS"))
    gpus = 0 if elsewhere else torch.cuda.device_count()
    device = str(said.get("trainer.device") or "cuda")
    nodes = int(said.get("trainer.nnodes") or 1)
    if device == "cpu":
        return Machine("cpu", 1, nodes, flash_attention=False, attached=attached), [
            "verl on a CPU: for development and tests, not for training that is meant"
        ]
    wanted = int(said.get("trainer.n_gpus_per_node") or gpus or 8)
    flash = elsewhere or importlib.util.find_spec("flash_attn") is not None
    notes = (
        [] if flash else ["flash-attn is not installed: attention by PyTorch, prompts padded to one length"]
    )
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if gpus else None
    if attached or elsewhere:
        return Machine("cuda", wanted, nodes, memory, flash, attached), notes
    if nodes == 1 and gpus < wanted:
        raise ConfigError(
            f"engine verl needs {wanted} GPUs here and {gpus} are visible: set verl.trainer.n_gpus_per_node, submit to a "
            "cluster with --address, use --engine local, or for a try on a CPU --set verl.trainer.device=cpu"
        )
    if nodes > 1:
        raise ConfigError(
            f"verl.trainer.nnodes is {nodes}, and this is one machine: submit to a Ray cluster with --address"
        )
    return Machine("cuda", wanted, nodes, memory, flash, attached), notes


@dataclass(frozen=True)
class Checked:
    """What the rows come to.

    Attributes:
        steps: of the whole run.
        notes: what was left out, a sentence each.
    """

    steps: int
    notes: list[str]


def check_rows(plan: VerlPlan) -> Checked:
    """Build the datasets as verl will, before a model is loaded.

    Raises:
        ConfigError, DataError: as `BaseTrainDataset`, or as the dataset class of one's own that verl will load.
    """
    from rm_gallery.core.models.weights import load_tokenizer

    config, data, notes, steps = plan.config, plan.resolved.data, [], 0
    place = str(data.custom_cls.path)
    if place.startswith("pkg://"):
        place = place.removeprefix("pkg://").replace("/", ".")
    dataset_class = load_object(f"{place}:{data.custom_cls.name}")
    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    keys = {key: data[key] for key in ("train_files", "max_prompt_length", "seed", "order")}
    keys["apply_chat_template_kwargs"] = dict(data.apply_chat_template_kwargs)
    # in place of the card, which lies in a folder that is not made yet
    keys |= {
        "task": config.task,
        "dimensions": config.dimensions,
        "reasoning_model": config.model.reasoning_model,
        **config.prompt.model_dump(),
    }
    for name, file in (("training", config.data.train), ("held-out", config.data.val)):
        if file is None:
            continue
        with _said_once():
            dataset = dataset_class(
                data_files=str(file.resolve()),
                tokenizer=tokenizer,
                processor=None,
                config=keys,
                max_samples=config.data.limit or -1,
            )
        if name == "training":
            steps = len(dataset) // config.train.batch_size
        if overlong := getattr(dataset, "overlong", 0):
            total = overlong + len(dataset.examples)
            notes.append(f"{overlong} of {total} {name} prompts are over data.max_prompt_length and left out")
    return Checked(steps, notes)


def check_rows_here(plan: VerlPlan) -> list[str]:
    """`check_rows` as far as this machine can: its notes, or why there are none. A cluster's files may be elsewhere."""
    config = plan.config
    needed = (Path(config.model.path), config.data.train, config.data.val)
    absent = [str(path) for path in needed if path is not None and not path.exists()]
    if absent:
        return [f"the rows were not read, for this is not on this machine: {', '.join(absent)}"]
    return check_rows(plan).notes


@contextmanager
def _said_once() -> Iterator[None]:
    """What the dataset logs of its prompts is said by us; in verl's own log it stands as well."""
    theirs = logging.getLogger("rm_gallery.core.train.dataset")
    before = theirs.level
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(before)


def _next_log(run: Path) -> Path:
    """A new file for each start: verl empties the one that it opens."""
    used = [int(file.stem.rpartition("-")[2]) for file in (run / "verl").glob("metrics-*.jsonl")]
    return run / "verl" / f"metrics-{max(used, default=0) + 1}.jsonl"
