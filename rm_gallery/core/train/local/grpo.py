"""TRL's GRPOTrainer with the group's common prompt computed once.

Sampling encodes each distinct prompt once (`core/models/writing.py`), and so do per-token log-probabilities, with each
distinct answer (`core/models/scoring.py`). Losses and gradients equal plain TRL's up to rounding;
`model.shared_prefix: false` runs TRL's own computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_tensor_dict

from rm_gallery.core.evaluate.predictions import data_source
from rm_gallery.core.models.prompts import sorted_once
from rm_gallery.core.models.scoring import add_scoring
from rm_gallery.core.models.weights import inner_model, store_for_autocast
from rm_gallery.core.models.writing import write
from rm_gallery.core.tasks import Task
from rm_gallery.core.train.local.heldout import HeldOutMixin
from rm_gallery.core.train.local.phases import PhasesMixin
from rm_gallery.core.train.local.sharing import share_prompts
from rm_gallery.core.train.rows import Example


class RewardFunction:
    """The task's reward in the signature that TRL calls, with the task's figures logged beside it."""

    __name__ = "reward"

    def __init__(self, task: Task[Any], examples: Sequence[Example], opening: str = "") -> None:
        self.task = task
        self.examples = examples
        self.opening = opening
        """What the chat template writes before each completion (`ModelJudge.opening`)."""

    def __call__(self, *, completions: list[Any], index: list[int], log_metric: Any, **_: Any) -> list[float]:
        """Score `completions` (one chat message each); `index` is the example of each."""
        results = []
        for completion, i in zip(completions, index, strict=True):
            example = self.examples[i]
            results.append(
                self.task.compute_score(
                    data_source(example.row),
                    self.opening + completion[0]["content"],
                    example.truth,
                )
            )
        figures = [("accuracy", "accuracy"), ("mae", "abs_error"), ("parse_rate", "parsed")]
        figures += [(f"reward/{part.name}", f"reward_{part.name}") for part in self.task.parts]
        for name, key in figures:
            values = [result[key] for result in results if key in result]
            if values:
                log_metric(name, sum(values) / len(values))
        return [result["score"] for result in results]


class JudgeGRPOTrainer(PhasesMixin, HeldOutMixin, GRPOTrainer):
    """TRL's computation as it is, with our held-out evaluation, order of rows and seconds by phase."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffered_inputs: list[Any] | None = None
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)  # those want one dtype in a shard
        if self.ref_model is not None and self.args.bf16 and whole:
            store_for_autocast(self.accelerator.unwrap_model(self.ref_model), torch.bfloat16)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        # As TRL's, with two differences. The rows are not shuffled: a group stays in one micro-batch, where its
        # prompt can be shared, and the batch's prompts come in the order of our sampler. And the loss is the mean
        # over the tokens of its own mini-batch, as documented; TRL divides by the whole batch's average.
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        per_batch = self.args.steps_per_generation
        if self._step % (per_batch * self.num_iterations) == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            pieces = split_tensor_dict(scored, per_batch)
            per_update = self.args.gradient_accumulation_steps
            for start in range(0, per_batch, per_update):
                mini = pieces[start : start + per_update]
                tokens = self.accelerator.gather(sum(piece["completion_mask"].sum() for piece in mini)).sum()
                for piece in mini:
                    piece["num_items_in_batch"] = tokens * (per_batch // per_update)
            self._buffered_inputs = pieces
        return self._buffered_inputs[self._step % per_batch]

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with self.timed("generate"):
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        # with gradients it is the update itself, timed from outside
        if torch.is_grad_enabled():
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)
        with self.timed("log_probs"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.timed("reward"):
            return super()._calculate_rewards(*args, **kwargs)


class SharedPrefixGRPOTrainer(JudgeGRPOTrainer):
    """Encodes each distinct prompt once in sampling, reference and update."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = [model for model in (self.model, self.ref_model) if model is not None]
        share_prompts(self, *models)
        for model in models:
            add_scoring(inner_model(self.accelerator.unwrap_model(model)))

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        if torch.is_grad_enabled():
            scores = self._scores(model, input_ids, attention_mask, logits_to_keep)
            return scores.log_probs, scores.entropy if compute_entropy else None, None
        with self.timed("log_probs"):
            size = batch_size or len(input_ids)
            pieces = [
                self._scores(model, input_ids[i : i + size], attention_mask[i : i + size], logits_to_keep)
                for i in range(0, len(input_ids), size)
            ]
            entropy = torch.cat([piece.entropy for piece in pieces]) if compute_entropy else None
            return torch.cat([piece.log_probs for piece in pieces]), entropy, None

    def _scores(self, model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int) -> Any:
        with self.accelerator.autocast():
            return model(
                prompt_ids=ids[:, :-keep],
                prompt_mask=mask[:, :-keep],
                answer_ids=ids[:, -keep:],
                answer_mask=mask[:, -keep:],
                temperature=self.temperature,
            )

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, fields: Any, num_generations: int, **options: Any
    ) -> tuple[list[list[int]], None]:
        if self.use_vllm:
            return super()._generate_single_turn(prompt_ids, images, fields, num_generations, **options)
        prompts, rows = sorted_once([tuple(ids) for ids in prompt_ids])
        with (
            self.timed("generate"),
            unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model,
            self.accelerator.autocast(),
        ):
            was_training = model.training
            model.eval()
            written = write(model, prompts, rows, config=self.generation_config)
            model.train(was_training)
        return [self._until_end(row) for row in written], None

    def _until_end(self, tokens: list[int]) -> list[int]:
        """The tokens up to and with the first end-of-sequence."""
        ends = [i for i, token in enumerate(tokens) if token in self.eos_token_ids]
        return tokens[: ends[0] + 1] if ends else tokens
