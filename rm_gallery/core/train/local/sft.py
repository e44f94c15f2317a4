"""TRL's SFTTrainer with our held-out evaluation, each question encoded once, and only answers projected.

Without Triton, TRL 1.16 projects every position to the vocabulary, prompt included. A verdict is some eight tokens
behind a hundred and more of prompt, so on a CPU that projection was most of the step. And the responses to one
question are judged under prompts that begin alike (`core/models/prompts.py`).
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from trl import SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from rm_gallery.core.models.prompts import distinct_prompts
from rm_gallery.core.models.shared_prefix import check_logits, score_completions
from rm_gallery.core.models.weights import inner_model
from rm_gallery.core.train.local.heldout import HeldOutMixin


class JudgeSFTTrainer(HeldOutMixin, SFTTrainer):
    """Supervised training on verdicts; the loss is TRL's, on the answer only."""


class SharedPrefixSFTTrainer(JudgeSFTTrainer):
    """On a CPU, encodes each question once and projects answers only; elsewhere TRL's kernels do the latter."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner = inner_model(self.accelerator.unwrap_model(self.model))
        # a router's loss is left to TRL
        if inner.device.type == "cpu" and not getattr(inner.config, "output_router_logits", False):
            check_logits(inner)
            _score_answers_only(inner)


def _score_answers_only(model: Any) -> None:
    original = model.forward

    @functools.wraps(original)
    def forward(
        self: Any,
        *args: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        fused_lm_head: bool = False,
        labels: Any = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or labels is None:
            extra = {} if labels is None else {"labels": labels}
            return original(
                *args,
                input_ids=input_ids,
                attention_mask=attention_mask,
                fused_lm_head=fused_lm_head,
                **extra,
                **kwargs,
            )
        answered = labels != -100
        asked = attention_mask.bool() & ~answered
        prompts, rows = distinct_prompts(input_ids, asked)
        width = int(answered.sum(1).max())
        completion_mask = torch.arange(width, device=labels.device) < answered.sum(1, keepdim=True)
        completions = torch.zeros_like(completion_mask, dtype=labels.dtype)
        completions = completions.masked_scatter(completion_mask, labels[answered])
        scores = score_completions(
            self, rows, prompts=prompts, completion_ids=completions, completion_mask=completion_mask.long()
        )
        return FusedCausalLMOutput(
            loss=-scores.log_probs.sum() / completion_mask.sum().clamp(min=1),
            log_probs=scores.log_probs,
            entropy=scores.entropy,
            is_top1=scores.likeliest,
            label_mask=completion_mask,
        )

    model.forward = types.MethodType(forward, model)
