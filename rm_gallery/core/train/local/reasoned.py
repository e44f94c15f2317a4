"""Method `exact` of a judge that reasons: reasonings are sampled, and the verdict behind each is weighed exactly.

Of each step, the reasonings to all its prompts are written with the same weights, as by GRPO; then each micro-batch takes
one pass forward and backward over its prompts, the reasonings behind each and the verdicts behind those
(`core/models/reasonings.py`). What is minimised: `reasoned_loss.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rm_gallery.core.judge.sampling import prompt_seed
from rm_gallery.core.models.prompts import token_lists
from rm_gallery.core.models.reasonings import Asked, Reasoning, add_reasonings
from rm_gallery.core.train.local.exact import ExactJob, ExactTrainer
from rm_gallery.core.train.local.reasoned_loss import ReasonedLoss
from rm_gallery.core.train.local.reasoning import Reasoner, Tokens
from rm_gallery.core.train.local.trainers import in_bfloat16


@dataclass(frozen=True, kw_only=True)
class ReasonedJob(ExactJob):
    """As its parent, of a judge that reasons."""

    def _make(self, model: Any, **common: Any) -> ExactTrainer:
        config = self.config
        return ReasonedTrainer(
            model,
            reasoner=Reasoner(self.asker, self.task, config.rollout.max_response_length),
            samples=config.rollout.n,
            clip=config.loss.clip,
            by_std=config.loss.advantage == "group_std",
            updates=config.train.batch_size // config.mini_batch_size,
            autocast=torch.bfloat16 if in_bfloat16(config) else None,
            **common,
        )


class ReasonedTrainer(ExactTrainer):
    """Samples reasonings where a step begins, and lays them before the loss.

    Args:
        samples: reasonings to each prompt.
        updates: of the weights in a step, which all take reasonings written before the first.
        autocast: the dtype of the computation where it is not that of the weights.
    """

    advice = "start from a model that keeps to the format (method sft)"

    def __init__(
        self,
        *args: Any,
        reasoner: Reasoner,
        samples: int,
        clip: float,
        by_std: bool,
        updates: int,
        autocast: torch.dtype | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.reasoner = reasoner
        self.updates = updates
        self.autocast = autocast
        self.group_loss = ReasonedLoss(self.objective, samples, clip, by_std)
        self._waiting: list[dict[str, Any]] = []

    def _extend(self, model: Any) -> None:
        add_reasonings(model)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], None]:
        """The micro-batches of one update, those of a whole step prepared at once."""
        if not self._waiting:
            batches = [next(epoch_iterator) for _ in range(num_batches * self.updates)]
            self._waiting = self._reasoned(batches)
            self._score(self._waiting[num_batches:])
        taken, self._waiting = self._waiting[:num_batches], self._waiting[num_batches:]
        return taken, None

    def _reasoned(self, batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The batches of prompts with samples to each, R rows."""
        prompts = [token_lists(batch["input_ids"], batch["attention_mask"]) for batch in batches]
        asked = sorted({prompt for each in prompts for prompt in each})
        with self.timed("generate"):
            written = self.reasoner.sample(
                self.accelerator.unwrap_model(self.model),
                asked,
                n=self.group_loss.n,
                # of the step alone, so that a run that was killed draws the same again
                seed=prompt_seed(self.args.seed, [self.state.global_step]),
                autocast=self.autocast,
            )
        samples = dict(zip(asked, written, strict=True))
        return [
            self._rows(each, samples, batch["truth"]) for each, batch in zip(prompts, batches, strict=True)
        ]

    def _rows(
        self, prompts: Sequence[Tokens], samples: dict[Tokens, list[Reasoning]], truths: Tensor
    ) -> dict[str, Any]:
        n = self.group_loss.n
        rows = [(prompt, reasoning) for prompt in prompts for reasoning in samples[prompt]]
        texts = [[*prompt, *reasoning.tokens] for prompt, reasoning in rows]
        padded = self.processing_class.pad([{"input_ids": text} for text in texts], return_tensors="pt")
        return {
            **padded,  # what the step's tokens are counted by
            "truth": truths.repeat_interleave(n),
            "asked": Asked(*map(tuple, zip(*rows, strict=True))),
            "old": None,
        }

    def _score(self, batches: Sequence[dict[str, Any]]) -> None:
        """What is trained after an update of the weights keeps the log-probabilities that it was written with."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()  # adapters' dropout draws nothing here: a run that goes on would not draw it again
        with self.timed("log_probs"), torch.no_grad(), self.accelerator.autocast():
            for batch in batches:
                batch["old"] = model(asked=batch["asked"]).tokens
        model.train(was_training)

    def _loss(self, model: Any, inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        asked = inputs["asked"]
        with self.accelerator.autocast():
            found = model(asked=asked)
        reference = self._reference(model, asked=asked)
        return self.group_loss(asked, found, inputs["truth"], reference, inputs["old"])
