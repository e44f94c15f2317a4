"""Words that verl 0.9.1 takes, key by key. Another one stops it, most often in a worker that has just started."""

from __future__ import annotations

from typing import NamedTuple


class Choice(NamedTuple):
    """The legal words of a key; `when` names another key, and its value with which alone this one counts."""

    values: tuple[str, ...]
    required: bool = False
    when: tuple[str, object] | None = None


_ESTIMATORS = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
_KL = (*_ESTIMATORS, *(f"{name}+" for name in _ESTIMATORS))  # +: with its gradient replaced by that of k2
_SCHEDULES = ("constant", "cosine")

CHOICES = {
    "algorithm.adv_estimator": Choice(
        (
            *(
                "gae",
                "grpo",
                "grpo_vectorized",
                "grpo_passk",
                "gdpo",
                "rloo",
                "rloo_vectorized",
                "opo",
                "gpg",
            ),
            *("remax", "reinforce_plus_plus", "reinforce_plus_plus_baseline"),
            *("optimal_token_baseline", "tir_optimal_token_baseline"),
        ),
        required=True,
    ),
    "algorithm.kl_penalty": Choice(_KL, when=("algorithm.use_kl_in_reward", True)),
    "actor_rollout_ref.actor.kl_loss_type": Choice(_KL, when=("actor_rollout_ref.actor.use_kl_loss", True)),
    "actor_rollout_ref.actor.loss_agg_mode": Choice(
        ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"),
        required=True,
    ),
    "actor_rollout_ref.actor.optim.lr_scheduler_type": Choice(_SCHEDULES),
    "actor_rollout_ref.actor.optim.warmup_style": Choice(_SCHEDULES),
    "actor_rollout_ref.rollout.name": Choice(("vllm", "sglang", "trtllm"), required=True),
    "actor_rollout_ref.rollout.mode": Choice(("async",)),
    "reward.reward_manager.source": Choice(("register", "importlib"), required=True),
    "reward.reward_manager.name": Choice(
        ("naive", "dapo", "gdpo", "rate_limited", "remote"),
        required=True,
        when=("reward.reward_manager.source", "register"),
    ),
    "trainer.resume_mode": Choice(("auto", "disable", "resume_path"), required=True),
    "trainer.v1.trainer_mode": Choice(("sync", "colocate_async", "separate_async"), required=True),
}

LOGGERS = (
    *("console", "file", "wandb", "tensorboard", "mlflow", "swanlab", "trackio", "clearml", "vemlp_wandb"),
    *("rl_insight", "tracking"),
)
