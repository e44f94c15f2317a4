"""From the training YAML to verl's configuration: every setting that binds the two engines to one run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.verl.sizing import SAMPLING_SHARE, ModelSize, layout

NEVER = 10**9
DATASET = ("pkg://rm_gallery.core.train.dataset", "BaseTrainDataset")
REWARD = ("pkg://rm_gallery.core.train.verl.reward", "compute_score")
CALLBACK = "rm_gallery.core.train.verl.callback.JudgeCheckpoint"


@dataclass(frozen=True)
class Machine:
    """Where the run will be.

    Attributes:
        gpu_gib: memory of one GPU; None where it is not known here.
        flash_attention: whether the package flash-attn is installed.
        attached: a Ray cluster is running already, and says itself what it has.
    """

    device: str = "cuda"
    gpus_per_node: int = 8
    nodes: int = 1
    gpu_gib: float | None = None
    flash_attention: bool = True
    attached: bool = False


def build_overrides(config: TrainConfig, run: Path, machine: Machine, size: ModelSize) -> dict[str, Any]:
    """verl's keys for the run, with the YAML's `verl:` section after ours.

    A key with a leading `+` is one that verl's own configuration does not list.

    Args:
        run: the run's folder, absolute; every node must see it.

    Raises:
        ConfigError: something that this engine cannot honour as the local one does.
    """
    check_available(config)
    keys = {
        **_data(config, run),
        **_reward(run),
        **_actor(config, machine, size),
        **_rollout(config, machine, size),
        **_trainer(config, run, machine),
    }
    if machine.device == "cpu":
        from rm_gallery.core.train.verl.cpu import overrides as cpu_overrides

        keys.update(cpu_overrides(config, size))
    for key, value in config.verl.items():
        if machine.device == "cpu" and key == "trainer.n_gpus_per_node":
            continue  # the recipe's number of GPUs; on a CPU there is one worker a node
        keys = {known: v for known, v in keys.items() if known.lstrip("+") != key.lstrip("+")}
        keys[key] = value
    return keys


def check_available(config: TrainConfig) -> None:
    """Refuse what verl does not do, or not as the local engine does it. Raises `ConfigError`."""
    if config.method != "grpo":
        raise ConfigError(f"method {config.method!r} is not available with engine verl; use grpo")
    if config.train.scheduler == "linear":
        raise ConfigError("train.scheduler linear is not available with engine verl; use constant or cosine")
    if config.model.lora and config.model.lora.dropout:
        raise ConfigError("model.lora.dropout is not available with engine verl; set it to 0")
    if config.data.val is not None and config.data.val.resolve() == config.data.train.resolve():
        raise ConfigError("data.val is the same file as data.train: held-out figures need other rows")


def _data(config: TrainConfig, run: Path) -> dict[str, Any]:
    data, train = config.data, config.train
    limit = -1 if data.limit is None else data.limit
    keys: dict[str, Any] = {
        "data.train_files": _file(data.train),
        "data.val_files": _file(data.val or data.train),
        "data.train_batch_size": train.batch_size,
        "data.max_prompt_length": data.max_prompt_length,
        "data.max_response_length": config.rollout.max_response_length,
        "data.train_max_samples": limit,
        # verl builds a held-out set in any case; without one it gets a row that is never judged
        "data.val_max_samples": limit,
        # the dataset lays its rows out in the order of our sampler, which both engines share
        "data.shuffle": False,
        "data.validation_shuffle": False,
        "data.dataloader_num_workers": 0,
        "data.seed": train.seed,
        "data.custom_cls.path": DATASET[0],
        "data.custom_cls.name": DATASET[1],
        "data.trust_remote_code": config.model.trust_remote_code,
        "+data.apply_chat_template_kwargs.enable_thinking": config.model.reasoning_model,
        "+data.card": str(run),
        "+data.order.batch_size": train.batch_size,
        "+data.order.epochs": float(train.epochs),
        "+data.order.max_steps": train.max_steps,
        "+data.order.seed": train.seed,
        "+data.order.shuffle": data.shuffle,
    }
    return keys


def _reward(run: Path) -> dict[str, Any]:
    return {
        "reward.reward_manager.name": "naive",
        "reward.custom_reward_function.path": REWARD[0],
        "reward.custom_reward_function.name": REWARD[1],
        "+reward.custom_reward_function.reward_kwargs.card": str(run),
    }


def _actor(config: TrainConfig, machine: Machine, size: ModelSize) -> dict[str, Any]:
    train, loss, model = config.train, config.loss, config.model
    half = is_half(config, machine)
    placed = layout(size, machine.gpus_per_node, machine.nodes, machine.gpu_gib)
    tokens = config.data.max_prompt_length + config.rollout.max_response_length
    keys: dict[str, Any] = {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": loss.advantage == "group_std",
        "algorithm.use_kl_in_reward": False,
        "actor_rollout_ref.model.path": _model_path(model.path),
        "actor_rollout_ref.model.trust_remote_code": model.trust_remote_code,
        "actor_rollout_ref.model.enable_gradient_checkpointing": model.gradient_checkpointing
        or not _small(size),
        "actor_rollout_ref.model.use_remove_padding": machine.flash_attention,
        "actor_rollout_ref.actor.strategy": "fsdp2",
        "actor_rollout_ref.actor.fsdp_config.dtype": "bfloat16" if half else "float32",
        "actor_rollout_ref.actor.fsdp_config.param_offload": placed.offload,
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload": placed.offload,
        "actor_rollout_ref.actor.fsdp_config.seed": train.seed,
        "actor_rollout_ref.ref.fsdp_config.dtype": "bfloat16" if half else "float32",
        "actor_rollout_ref.ref.fsdp_config.param_offload": placed.offload,
        "actor_rollout_ref.actor.data_loader_seed": train.seed,
        "actor_rollout_ref.actor.optim.lr": train.learning_rate,
        "actor_rollout_ref.actor.optim.weight_decay": train.weight_decay,
        "actor_rollout_ref.actor.optim.lr_warmup_steps": train.warmup_steps,
        "actor_rollout_ref.actor.optim.lr_scheduler_type": train.scheduler,
        "actor_rollout_ref.actor.optim.clip_grad": train.max_grad_norm,
        "actor_rollout_ref.actor.ppo_mini_batch_size": config.mini_batch_size,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.shuffle": False,
        "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
        "actor_rollout_ref.actor.clip_ratio": loss.clip,
        "actor_rollout_ref.actor.clip_ratio_low": loss.clip,
        "actor_rollout_ref.actor.clip_ratio_high": loss.clip,
        # verl's second clip, of ratios above 3 where the advantage is negative, is not part of our loss
        "actor_rollout_ref.actor.clip_ratio_c": 1.0e6,
        "actor_rollout_ref.actor.use_kl_loss": loss.kl_coef > 0,
        "actor_rollout_ref.actor.kl_loss_coef": loss.kl_coef,
        "actor_rollout_ref.actor.kl_loss_type": loss.kl_estimator,
        "actor_rollout_ref.actor.entropy_coeff": 0,
    }
    if not half:  # FSDP computes in bfloat16 whatever `dtype` says, and takes this alone
        plain = dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")
        for part in ("actor", "ref"):
            keys[f"+actor_rollout_ref.{part}.fsdp_config.mixed_precision"] = plain
    if model.attention or not machine.flash_attention:
        keys["+actor_rollout_ref.model.override_config.attn_implementation"] = model.attention or "sdpa"
    keys.update(_micro_batches(config, machine, tokens))
    if model.lora:
        keys.update(
            {
                "actor_rollout_ref.model.lora_rank": model.lora.rank,
                "actor_rollout_ref.model.lora_alpha": model.lora.alpha,
                "actor_rollout_ref.model.target_modules": model.lora.target_modules,
                "actor_rollout_ref.rollout.load_format": "safetensors",
            }
        )
    return keys


def _micro_batches(config: TrainConfig, machine: Machine, tokens: int) -> dict[str, Any]:
    """By a budget of tokens, or of a fixed number of samples where `train.micro_batch_size` asks for one."""
    budget = config.train.micro_batch_tokens or 16384
    places = ("actor.ppo", "ref.log_prob", "rollout.log_prob")
    fixed = config.train.micro_batch_size is not None or not machine.flash_attention
    keys: dict[str, Any] = {
        "actor_rollout_ref.actor.use_dynamic_bsz": not fixed,
        "actor_rollout_ref.ref.log_prob_use_dynamic_bsz": not fixed,
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": not fixed,
    }
    # verl counts samples, ours prompts; without a size of one's own, as many as make some of the budget
    prompts = config.train.micro_batch_size or max(1, budget // (tokens * config.rollout.n))
    size = min(prompts, config.mini_batch_size) * config.rollout.n
    share = config.mini_batch_size * config.rollout.n // (machine.gpus_per_node * machine.nodes)
    size = math.gcd(size, share) if share else size
    for place in places:
        section, _, prefix = place.partition(".")
        key = f"actor_rollout_ref.{section}.{prefix}"
        if fixed:
            keys[f"{key}_micro_batch_size_per_gpu"] = size
        else:
            keys[f"{key}_max_token_len_per_gpu"] = max(budget, tokens)
    return keys


def _rollout(config: TrainConfig, machine: Machine, size: ModelSize) -> dict[str, Any]:
    rollout = config.rollout
    tokens = config.data.max_prompt_length + rollout.max_response_length
    placed = layout(size, machine.gpus_per_node, machine.nodes, machine.gpu_gib)
    return {
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": rollout.n,
        "actor_rollout_ref.rollout.temperature": rollout.temperature,
        "actor_rollout_ref.rollout.seed": config.train.seed,
        "actor_rollout_ref.rollout.dtype": "bfloat16" if is_half(config, machine) else "float32",
        "actor_rollout_ref.rollout.tensor_model_parallel_size": placed.tensor_parallel,
        "actor_rollout_ref.rollout.gpu_memory_utilization": SAMPLING_SHARE,
        "actor_rollout_ref.rollout.max_model_len": tokens,
        "actor_rollout_ref.rollout.max_num_batched_tokens": max(8192, tokens),
        # for `rollout_probs_diff/mean`: what vLLM thought of its samples against what the trainer thinks of them
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        # held-out verdicts are greedy, as in `rmg eval`
        "actor_rollout_ref.rollout.val_kwargs.do_sample": False,
        "actor_rollout_ref.rollout.val_kwargs.temperature": 0,
        "actor_rollout_ref.rollout.val_kwargs.n": 1,
    }


def _trainer(config: TrainConfig, run: Path, machine: Machine) -> dict[str, Any]:
    train, evaluates = config.train, config.data.val is not None
    return {
        # `file` is where our metrics.jsonl comes from
        "trainer.logger": [*config.track, "file"],
        "trainer.project_name": f"{Path(config.task.partition(':')[0]).stem}_train",
        "trainer.experiment_name": run.name,
        "trainer.device": machine.device,
        "trainer.n_gpus_per_node": machine.gpus_per_node,
        "trainer.nnodes": machine.nodes,
        "trainer.total_epochs": 1,  # the dataset is the whole run, laid out in order
        "trainer.save_freq": train.save_every or NEVER,  # and the last step in any case
        "trainer.test_freq": (train.eval_every or NEVER) if evaluates else -1,
        "trainer.val_before_train": evaluates,
        "trainer.max_actor_ckpt_to_keep": train.keep_checkpoints,
        "trainer.default_local_dir": str(run),
        "trainer.resume_mode": "auto",
        "trainer.rollout_data_dir": str(run / "verl" / "rollouts"),
        "trainer.validation_data_dir": str(run / "verl" / "validation") if evaluates else None,
        "trainer.checkpoint_callback_class": CALLBACK,
    }


def is_half(config: TrainConfig, machine: Machine) -> bool:
    """Whether the computation is in bfloat16; `auto` is, on a GPU."""
    return config.model.dtype == "bfloat16" or (config.model.dtype == "auto" and machine.device != "cpu")


def _small(size: ModelSize) -> bool:
    """So small that activations fit without being computed twice."""
    return size.parameters is not None and size.parameters < 1e9


def _file(path: Path) -> str:
    return str(path.expanduser().resolve())


def _model_path(path: str) -> str:
    folder = Path(path).expanduser()
    return str(folder.resolve()) if folder.is_dir() else path


# -- Hydra's text form

_PLAIN = re.compile(r"[A-Za-z0-9_./:@\-]+")


def to_words(overrides: Mapping[str, Any]) -> list[str]:
    """`key=value` words as Hydra reads them."""
    return [f"{key}={_text(value)}" for key, value in overrides.items()]


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        special = value.lower() in ("null", "true", "false", "nan", "inf") or _is_number(value)
        if _PLAIN.fullmatch(value) and not special:
            return value
        # Hydra takes a backslash as it is, but where a quote follows
        escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value)
        return f"'{escaped}'"
    return str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
