"""A command line written for verl 0.4, and what it takes to run it on verl 0.9.1."""

from __future__ import annotations

from rm_gallery.core.train.verl.check import explain

ACTOR, REF, ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("actor", "ref", "rollout"))

# of the guide to pointwise training
GUIDE = (
    "algorithm.adv_estimator=grpo",
    "data.train_files=./data/helpsteer2_pointwise_train.parquet",
    "data.val_files=./data/helpsteer2_pointwise_test.parquet",
    "data.train_batch_size=96",
    "data.val_batch_size=192",
    "data.max_prompt_length=4096",
    "data.max_response_length=2048",
    "data.custom_cls.path=./dataset.py",
    "data.custom_cls.name=HelpfulnessPointwiseTrainDataset",
    "reward_model.reward_manager=naive",
    "custom_reward_function.path=./reward_fn.py",
    "custom_reward_function.name=compute_score",
    "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct",
    "actor_rollout_ref.actor.optim.lr=1e-6",
    "actor_rollout_ref.actor.ppo_mini_batch_size=24",
    "actor_rollout_ref.actor.use_kl_loss=true",
    "actor_rollout_ref.actor.kl_loss_coef=0.001",
    "actor_rollout_ref.model.enable_gradient_checkpointing=true",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=8",
    "actor_rollout_ref.rollout.name=vllm",
    "trainer.logger=['console','wandb']",
    "trainer.project_name=pointwise_train",
    "trainer.experiment_name=rm-gallery-pointwise-1120T0912",
    "trainer.n_gpus_per_node=8",
    "trainer.nnodes=1",
    "trainer.save_freq=20",
    "trainer.test_freq=10",
    "trainer.total_epochs=1",
    "trainer.default_local_dir=./checkpoints/1120T0912",
)


def right() -> tuple[str, ...]:
    """The same for verl 0.9.1, on 8 GPUs."""
    return (
        *explain(GUIDE).corrected,
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    )
