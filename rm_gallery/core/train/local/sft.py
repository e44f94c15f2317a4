"""TRL's SFTTrainer with our held-out evaluation, and the vocabulary projected only where there is a label.

Without Triton, TRL 1.16 projects every position to the vocabulary, prompt included. A verdict is some eight tokens
behind a hundred and more of prompt, so on a CPU that projection was most of the step.
"""

from __future__ import annotations

import functools
import types
from typing import Any

from trl import SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from rm_gallery.core.models.shared_prefix import project_labels
from rm_gallery.core.train.local.heldout import HeldOutMixin


class JudgeSFTTrainer(HeldOutMixin, SFTTrainer):
    """Supervised training on verdicts; the loss is TRL's, on the answer only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner = self.accelerator.unwrap_model(self.model)
        inner = inner.get_base_model() if hasattr(inner, "peft_config") else inner
        # elsewhere TRL's kernel selects the labelled positions itself; a router's loss is left to it too
        if inner.device.type == "cpu" and not getattr(inner.config, "output_router_logits", False):
            _project_labels_only(inner)


def _project_labels_only(model: Any) -> None:
    original = model.forward

    @functools.wraps(original)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None:
            extra = {} if labels is None else {"labels": labels}
            return original(*args, fused_lm_head=fused_lm_head, **extra, **kwargs)
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        shifted = labels[:, 1:]
        mask = shifted != -100
        scores, entropy, likeliest = project_labels(self.get_output_embeddings(), hidden[mask], shifted[mask])
        blank = scores.new_zeros(mask.shape)
        log_probs = blank.masked_scatter(mask, scores)
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=blank.masked_scatter(mask, entropy),
            is_top1=blank.bool().masked_scatter(mask, likeliest),
            label_mask=mask,
        )

    model.forward = types.MethodType(forward, model)
