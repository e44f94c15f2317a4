"""Keys of command lines written for verl 0.2 to 0.5, and keys that verl 0.9.1 lists but does not read.

Found by comparing the composed configurations of verl 0.2.0, 0.3.0, 0.4.0, 0.4.1 and 0.5.0 with that of 0.9.1, and
by looking in the source of 0.9.1 for whatever reads each key that is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Legacy:
    """A key that verl 0.9.1 does nothing with, or stops at.

    Attributes:
        old: the key; `section.*` stands for every key below the section.
        new: what takes its place, `*` for what it stood for in `old`; empty where nothing does. A leading `+` marks
            what verl reads without listing it.
        reason: why, as the end of a sentence.
        refused: verl stops at it, at the command line or when its workers start; else it is silently ignored.
        value: how the value is carried over: as it is; divided by the number of GPUs; or a switch that becomes 1.
        own_dataset: a dataset class of one's own may read it: verl hands over the whole section `data`.
        plus: with a leading `+` it still works.
    """

    old: str
    new: tuple[str, ...]
    reason: str
    refused: bool = False
    value: Literal["same", "per_gpu", "switch"] = "same"
    own_dataset: bool = False
    plus: bool = False


@dataclass(frozen=True)
class LegacyValue:
    """A value that an older verl took; `new` is None where the key is best left out."""

    key: str
    old: tuple[str, ...]
    new: str | None
    reason: str


_ACTOR, _REF, _ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("actor", "ref", "rollout"))
_REWARD = "main_ppo takes rewards from the section reward alone"
_SERVED = "a reward model is served by the rollout engine now, set up under reward.reward_model"
_OVERLONG = "verl leaves that to the dataset and cuts an overlong prompt at its start"
_V1 = "only verl's old trainer reads it"
_UNREAD = "nothing in verl reads it"

IGNORED: tuple[Legacy, ...] = (
    # rewards: verl migrates these for its fully asynchronous trainer only, never in main_ppo
    Legacy("custom_reward_function.path", ("reward.custom_reward_function.path",), _REWARD),
    Legacy("custom_reward_function.name", ("reward.custom_reward_function.name",), _REWARD),
    Legacy(
        "custom_reward_function.reward_kwargs.*", ("+reward.custom_reward_function.reward_kwargs.*",), _REWARD
    ),
    Legacy("reward_model.num_workers", ("reward.num_workers",), _REWARD),
    Legacy("reward_model.reward_manager", ("reward.reward_manager.name",), _REWARD),
    Legacy("reward_model.reward_kwargs.*", ("+reward.reward_kwargs.*",), _REWARD),
    Legacy("reward_model.reward_loop_source", ("reward.reward_manager.source",), _REWARD),
    Legacy("reward_model.reward_loop_module_path", ("reward.reward_manager.module.path",), _REWARD),
    Legacy("reward_model.reward_loop_class_name", ("reward.reward_manager.name",), _REWARD),
    Legacy("reward_model.enable", ("reward.reward_model.enable",), _REWARD),
    Legacy("reward_model.enable_resource_pool", ("reward.reward_model.enable_resource_pool",), _REWARD),
    Legacy("reward_model.n_gpus_per_node", ("reward.reward_model.n_gpus_per_node",), _REWARD),
    Legacy("reward_model.nnodes", ("reward.reward_model.nnodes",), _REWARD),
    Legacy("reward_model.model.path", ("reward.reward_model.model_path",), _REWARD),
    Legacy("reward_model.model.external_lib", (), _SERVED),
    Legacy("reward_model.model.trust_remote_code", (), _SERVED),
    Legacy("reward_model.rollout.*", ("reward.reward_model.rollout.*",), _REWARD),
    Legacy("sandbox_fusion.*", ("reward.sandbox_fusion.*",), _REWARD),
    Legacy(
        "reward.reward_manager.module.name",
        ("reward.reward_manager.name",),
        "the class in the module is looked up by reward.reward_manager.name",
    ),
    # data
    Legacy("data.truncation", (), _OVERLONG, own_dataset=True),
    Legacy("data.return_raw_chat", (), "verl always works from the chat messages", own_dataset=True),
    Legacy("data.return_raw_input_ids", (), _UNREAD, own_dataset=True),
    Legacy("data.return_full_prompt", (), _UNREAD, own_dataset=True),
    Legacy("data.reward_fn_key", (), "verl always takes the column data_source", own_dataset=True),
    Legacy(
        "data.tokenizer",
        ("actor_rollout_ref.model.tokenizer_path",),
        "the tokenizer comes with the model",
        own_dataset=True,
    ),
    Legacy(
        "data.trust_remote_code",
        ("actor_rollout_ref.model.trust_remote_code",),
        "the tokenizer comes with the model",
        own_dataset=True,
    ),
    # actor and reference
    Legacy(
        f"{_ACTOR}.grad_clip", (f"{_ACTOR}.optim.clip_grad",), "the engine clips by the optimizer's setting"
    ),
    Legacy(
        f"{_ACTOR}.use_torch_compile",
        (f"{_ACTOR}.fsdp_config.use_torch_compile",),
        "the engine compiles by its own setting, which is on",
    ),
    Legacy(
        f"{_REF}.use_torch_compile",
        (f"{_REF}.fsdp_config.use_torch_compile",),
        "the engine compiles by its own setting, which is on",
    ),
    Legacy(
        f"{_ACTOR}.fsdp_config.strategy", (f"{_ACTOR}.strategy",), "the actor's own setting overwrites it"
    ),
    Legacy(
        f"{_REF}.fsdp_config.strategy", (f"{_REF}.strategy",), "the reference's own setting overwrites it"
    ),
    Legacy(
        f"{_ACTOR}.use_fused_kernels",
        ("actor_rollout_ref.model.use_fused_kernels",),
        "the model's setting decides",
    ),
    Legacy(f"{_ACTOR}.use_prefix_grouper", (), "the engine does not hand it on to the model"),
    Legacy(f"{_ACTOR}.freeze_vision_tower", (), _UNREAD),
    Legacy(
        f"{_ACTOR}.optim.total_training_steps", ("trainer.total_training_steps",), "the trainer overwrites it"
    ),
    Legacy("actor_rollout_ref.nccl_timeout", (), _UNREAD),
    # rollout
    Legacy(f"{_ROLLOUT}.do_sample", (), "answers are always sampled, by rollout.temperature"),
    Legacy(f"{_ROLLOUT}.over_sample_rate", (), _UNREAD),
    Legacy(f"{_ROLLOUT}.multi_stage_wake_up", (), _UNREAD),
    Legacy(
        f"{_ROLLOUT}.multi_turn.enable",
        (),
        f"{_ROLLOUT}.agent.default_agent_loop or the column agent_name chooses the loop",
    ),
    Legacy(f"{_ROLLOUT}.multi_turn.use_inference_chat_template", (), _UNREAD),
    Legacy(f"{_ROLLOUT}.multi_turn.tokenization_sanity_check_mode", (), _UNREAD),
    Legacy(f"{_ROLLOUT}.multi_turn.num_repeat_rollouts", (), _UNREAD),
    # critic
    Legacy("critic.grad_clip", ("critic.optim.clip_grad",), "the engine clips by the optimizer's setting"),
    Legacy(
        "critic.ulysses_sequence_parallel_size",
        ("critic.fsdp.ulysses_sequence_parallel_size",),
        "the engine reads its own setting",
    ),
    Legacy(
        "critic.ppo_max_token_len_per_gpu",
        ("+critic.ppo_infer_max_token_len_per_gpu",),
        "the trainer takes the length for inference in both places",
    ),
    Legacy("critic.forward_micro_batch_size", (), _UNREAD),
    Legacy("critic.forward_micro_batch_size_per_gpu", (), _UNREAD),
    Legacy("critic.forward_max_token_len_per_gpu", (), _UNREAD),
    Legacy(
        "critic.optim.total_training_steps", ("trainer.total_training_steps",), "the trainer overwrites it"
    ),
    # algorithm and trainer
    Legacy("algorithm.use_pf_ppo", (), _V1),
    Legacy("algorithm.pf_ppo.*", (), _V1),
    Legacy(
        "algorithm.filter_groups.max_num_gen_batches",
        (),
        "groups are filtered until a batch is full; max_inflight_gen_batches bounds what is sampled at once",
    ),
    Legacy("trainer.balance_batch", (), "the trainer does that in any case"),
    Legacy("trainer.esi_redundant_time", (), _V1),
    Legacy("trainer.ray_wait_register_center_timeout", (), _V1),
)

_NSYS = "global_profiler.global_tool_config.nsys"
_GONE = "verl has nothing like it any more"
_NEW_NAME = "the key has a new name"
_AGENT = "agent loops took its place: rollout.agent"
_PROFILED = "there is one profiler for all parts, set up under global_profiler"
_ENGINE = "verl lists no options of the engine; with a + it hands them on, if the installed engine knows them"


def _refused(old: str, new: str | None, reason: str) -> Legacy:
    return Legacy(old, (new,) if new else (), reason, refused=True)


REFUSED: tuple[Legacy, ...] = (
    _refused("ray_init.timeline_json_file", "ray_kwargs.timeline_json_file", "the section is ray_kwargs"),
    _refused("ray_init.*", "+ray_kwargs.ray_init.*", "the section is ray_kwargs.ray_init"),
    _refused("reward_model.sandbox_fusion.*", "reward.sandbox_fusion.*", _REWARD),
    _refused(
        "reward_model.launch_reward_fn_async", None, "rewards are always computed in workers of their own"
    ),
    _refused("reward_model.*", None, _SERVED),
    _refused(f"{_ACTOR}.checkpoint.contents", f"{_ACTOR}.checkpoint.save_contents", _NEW_NAME),
    _refused("critic.checkpoint.contents", "critic.checkpoint.save_contents", _NEW_NAME),
    _refused(f"{_ACTOR}.fsdp_config.grad_offload", None, "gradients go with the parameters: param_offload"),
    _refused(f"{_REF}.fsdp_config.grad_offload", None, "a reference has no gradients"),
    _refused(
        "critic.model.fsdp_config.grad_offload", None, "gradients go with the parameters: param_offload"
    ),
    _refused("critic.model.fsdp_config.*", "critic.fsdp.*", "the section is critic.fsdp"),
    _refused(f"{_ROLLOUT}.chat_scheduler", None, _AGENT),
    _refused(f"{_ROLLOUT}.multi_turn.completion_callback", None, _AGENT),
    _refused(f"{_ROLLOUT}.multi_turn.interaction_config_path", None, _AGENT),
    _refused(f"{_ROLLOUT}.multi_turn.max_turns", f"{_ROLLOUT}.multi_turn.max_assistant_turns", _NEW_NAME),
    _refused(f"{_ROLLOUT}.use_fire_sampling", None, _GONE),
    _refused(
        f"{_ROLLOUT}.update_weights_bucket_megabytes",
        f"{_ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes",
        "the section is checkpoint_engine",
    ),
    *(
        _refused(f"{part}.profiler.discrete", f"{_NSYS}.discrete", _PROFILED)
        for part in ("actor_rollout_ref", _ACTOR, _REF, _ROLLOUT, "critic")
    ),
    _refused("actor_rollout_ref.profiler.*", f"{_ACTOR}.profiler.*", "each part has a profiler"),
    _refused("trainer.profile_steps", "global_profiler.steps", _PROFILED),
    _refused("trainer.controller_nsight_options.*", f"{_NSYS}.controller_nsight_options.*", _PROFILED),
    _refused("trainer.worker_nsight_options.*", f"{_NSYS}.worker_nsight_options.*", _PROFILED),
    _refused("trainer.npu_profile.*", None, _PROFILED),
    _refused("trainer.use_legacy_worker_impl", None, _GONE),
    _refused("trainer.val_generations_to_log_to_wandb", "trainer.log_val_generations", _NEW_NAME),
    _refused("data.sampler.*", None, _GONE),
    _refused("data.datagen.*", None, _GONE),
    *(
        Legacy(f"{section}.*", (f"+{section}.*",), _ENGINE, refused=True, plus=True)
        for section in (f"{_ROLLOUT}.engine_kwargs.vllm", f"{_ROLLOUT}.engine_kwargs.sglang")
    ),
    Legacy(
        "trainer.remove_previous_ckpt_in_save",
        ("trainer.max_actor_ckpt_to_keep", "trainer.max_critic_ckpt_to_keep"),
        "the number of checkpoints is set for each model",
        refused=True,
        value="switch",
        plus=True,
    ),
    # these are listed, and verl's workers stop at them
    *(
        Legacy(
            key, (f"{key}_per_gpu",), "the workers ask for the size per GPU", refused=True, value="per_gpu"
        )
        for key in (
            f"{_ACTOR}.ppo_micro_batch_size",
            f"{_REF}.log_prob_micro_batch_size",
            f"{_ROLLOUT}.log_prob_micro_batch_size",
            "critic.ppo_micro_batch_size",
        )
    ),
)

VALUES: tuple[LegacyValue, ...] = (
    LegacyValue(f"{_ROLLOUT}.mode", ("sync",), None, "answers are always sampled by a server"),
    LegacyValue(f"{_ROLLOUT}.name", ("hf",), "vllm", "sampling by transformers is gone"),
    LegacyValue(f"{_ROLLOUT}.name", ("sglang_async",), "sglang", "there is one form of it"),
    LegacyValue(
        f"{_ROLLOUT}.load_format",
        ("dummy_dtensor", "dummy_hf", "dummy_megatron"),
        "dummy",
        "the engine is given the word as it stands, and knows dummy",
    ),
)

# keys that work and deserve a word
NOTES = {
    "data.val_batch_size": "still the number of prompts judged at once; without it, all of them",
    f"{_ACTOR}.optim.warmup_style": "another name of lr_scheduler_type",
    "critic.optim.warmup_style": "another name of lr_scheduler_type",
}

_BY_KEY = {entry.old: entry for entry in (*IGNORED, *REFUSED)}


def find(key: str) -> Legacy | None:
    """The entry for a key, itself or by the nearest section of it."""
    if key in _BY_KEY:
        return _BY_KEY[key]
    section = key
    while "." in section:
        section = section.rpartition(".")[0]
        if entry := _BY_KEY.get(f"{section}.*"):
            return entry
    return None


def successors(entry: Legacy, key: str) -> list[str]:
    """What takes the place of `key`, for which `entry` was found; a leading `+` as in the entry."""
    rest = key[len(entry.old) - 1 :] if entry.old.endswith("*") else ""
    return [new.replace("*", rest) for new in entry.new]
