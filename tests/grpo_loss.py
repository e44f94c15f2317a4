"""The loss that `docs/cluster.md` documents, written down once: both engines are compared with it."""

from __future__ import annotations

import torch
from torch import Tensor


def grpo_loss(
    log_probs: Tensor,
    old: Tensor,
    reference: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    kl_coef: float,
) -> Tensor:
    """The mean over the tokens of a mini-batch; all of shape (N, T) but `advantages` (N,)."""
    ratio = (log_probs - old).exp()
    a = advantages[:, None]
    policy = -torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)
    d = reference - log_probs
    return ((policy + kl_coef * (d.exp() - d - 1)) * mask).sum() / mask.sum()
