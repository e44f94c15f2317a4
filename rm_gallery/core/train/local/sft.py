"""TRL's SFTTrainer with our held-out evaluation, each distinct token of a batch encoded once, and only answers
projected.

Without Triton, TRL 1.16 projects every position to the vocabulary, prompt included. A verdict is some eight tokens
behind a hundred and more of prompt, so on a CPU that projection was most of the step. And the responses to one
question are judged under prompts that begin alike, of different lengths (`core/models/scoring.py`).
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from trl import SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from rm_gallery.core.models.scoring import score_answers
from rm_gallery.core.models.weights import inner_model
from rm_gallery.core.train.local.heldout import HeldOutMixin
from rm_gallery.core.train.local.sharing import share_prompts


class JudgeSFTTrainer(HeldOutMixin, SFTTrainer):
    """Supervised training on verdicts; the loss is TRL's, on the answer only."""


class SharedPrefixSFTTrainer(JudgeSFTTrainer):
    """A batch is its distinct tokens in one row, without padding."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        share_prompts(self, self.model)
        _score_answers_only(inner_model(self.accelerator.unwrap_model(self.model)))


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
        width = int(answered.sum(1).max())
        answer_mask = torch.arange(width, device=labels.device) < answered.sum(1, keepdim=True)
        answers = torch.zeros_like(answer_mask, dtype=labels.dtype)
        answers = answers.masked_scatter(answer_mask, labels[answered])
        scores = score_answers(self, input_ids, asked, answers, answer_mask.long())
        return FusedCausalLMOutput(
            loss=-scores.log_probs.sum() / answer_mask.sum().clamp(min=1),
            log_probs=scores.log_probs,
            entropy=scores.entropy,
            is_top1=scores.likeliest,
            label_mask=answer_mask,
        )

    model.forward = types.MethodType(forward, model)
