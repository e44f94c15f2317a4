"""A composed configuration of verl, read for checking: values that may be missing, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rm_gallery.core.train.verl.hydra_words import key_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

ACTOR, REF, ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("actor", "ref", "rollout"))


class Settings:
    """A composed configuration, the keys that were given, and what follows from them."""

    def __init__(self, config: DictConfig, given: Sequence[str], context: int | None = None) -> None:
        self.config = config
        self.words = {key_of(word): word for word in given}
        self.context = context
        self.gpus = (self.number("trainer.n_gpus_per_node") or 1) * (self.number("trainer.nnodes") or 1)
        self.dynamic = bool(self.get(f"{ACTOR}.use_dynamic_bsz"))
        self.reference = bool(self.get("algorithm.use_kl_in_reward") or self.get(f"{ACTOR}.use_kl_loss"))
        enable, estimator = self.get("critic.enable"), self.get("algorithm.adv_estimator")
        self.critic = bool(enable) if enable is not None else estimator == "gae"

    def get(self, key: str) -> Any:
        """A value, or None where it is null, absent, mandatory and missing, or refers to nothing."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            return OmegaConf.select(self.config, key)
        except OmegaConfBaseException:
            return None

    def number(self, key: str) -> int | None:
        """A whole number above 0, or None."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    @property
    def ulysses(self) -> int:
        """Over how many GPUs one sequence is spread."""
        keys = (
            f"{ACTOR}.ulysses_sequence_parallel_size",
            f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size",
        )
        return max(self.number(key) or 1 for key in keys)

    @property
    def ranks(self) -> int:
        """The number of data-parallel parts that a batch is cut into."""
        model_parallel = self.ulysses
        if self.get(f"{ACTOR}.strategy") == "megatron":
            sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
            model_parallel = math.prod(self.number(f"{ACTOR}.megatron.{size}") or 1 for size in sizes)
        return max(1, self.gpus // model_parallel)

    @property
    def sequence(self) -> int | None:
        """The longest sequence, in tokens."""
        prompt, response = self.number(f"{ROLLOUT}.prompt_length"), self.number(f"{ROLLOUT}.response_length")
        return prompt + response if prompt and response else None
