"""The likelihood of a judgment given the gap of two scores: Bradley-Terry, with a margin, and with ties.

With d = score of the chosen response - score of the rejected one, and a margin m of pairs that prefer one:

    Bradley & Terry (1952)   P(chosen) = s(d - m)                                  s(x) = 1 / (1 + exp(-x))
    Rao & Kupper (1967)      P(chosen) = s(d - m - a)                              a = log theta > 0
                             P(tie)    = (theta^2 - 1) s(d - a) s(-d - a)
    Davidson (1970)          P(chosen) = exp((d - m)/2) / Z(d - m)                 Z(x) = exp(x/2) + exp(-x/2) + nu
                             P(tie)    = nu / Z(d)

Both are the Bradley-Terry model with strengths exp(score), and become it where theta = 1 and nu = 0. Without a margin
P(chosen) + P(rejected) + P(tie) = 1. Liu, Ge & Zhu (2024, arXiv 2410.05328) train reward models with Rao & Kupper's
model and show what dropping ties costs; Chen et al. (2024, arXiv 2409.17431) use both in DPO. The margin is that of
Touvron et al. (2023, Llama 2, section 3.2.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rm_gallery.core.errors import ConfigError

RATE = 0.1
"""Of the learned parameter's gradient steps, on the logarithm. The gradient is at most the share of ties off, and the
start is where equal scores give the data's share of ties."""


class Ties:
    """How a tie is likely, with its parameter.

    Args:
        kind: `drop`, `rao_kupper` or `davidson`.
        parameter: theta or nu; None to learn it.
        share: of ties in the training pairs, in (0, 1): where a learned parameter starts.

    Raises:
        ConfigError: there is not one tie to learn the parameter from.
    """

    def __init__(self, kind: str, parameter: float | None = None, share: float = 0.0) -> None:
        self.kind = kind
        self.learned = kind != "drop" and parameter is None
        if self.learned and not 0 < share < 1:
            raise ConfigError(
                f"bradley_terry.ties is {kind}, and not one training pair is a tie: there is nothing to learn its "
                "parameter from; use ties: drop, or set bradley_terry.tie_parameter"
            )
        if parameter is None:
            # P(tie) at d = 0 is (theta - 1) / (theta + 1), and nu / (nu + 2)
            parameter = (1 + share) / (1 - share) if kind == "rao_kupper" else 2 * share / (1 - share)
        self.raw = torch.zeros((), dtype=torch.float32)
        """log log theta, or log nu: any number is legal."""
        if kind != "drop":
            self.value = parameter
        self.raw.requires_grad_(self.learned)

    @property
    def value(self) -> float | None:
        """theta or nu; None where ties are dropped."""
        if self.kind == "drop":
            return None
        log = float(self.raw.detach())
        return math.exp(math.exp(log)) if self.kind == "rao_kupper" else math.exp(log)

    @value.setter
    def value(self, parameter: float) -> None:
        log = math.log(parameter)
        with torch.no_grad():
            self.raw.fill_(math.log(log) if self.kind == "rao_kupper" else log)

    def to(self, device: torch.device) -> Ties:
        """Move the parameter, in place."""
        self.raw = self.raw.detach().to(device).requires_grad_(self.learned)
        return self

    def loss(self, gap: Tensor, tied: Tensor, margin: Tensor) -> Tensor:
        """-log P of each judgment, (B,).

        Args:
            gap: (B,) score of the chosen response - score of the rejected one.
            tied: (B,) bool; the gap's sign means nothing there.
            margin: (B,), 0 where the pair is tied.
        """
        beyond = gap - margin
        if self.kind == "drop":
            return softplus(-beyond)
        if self.kind == "rao_kupper":
            a = self.raw.exp()
            chosen = softplus(a - beyond)
            # log(theta^2 - 1) = log(exp(2a) - 1), which must not overflow
            tie = softplus(a - gap) + softplus(a + gap) - 2 * a - torch.log(-torch.expm1(-2 * a))
        else:
            chosen = self._log_z(beyond) - beyond / 2
            tie = self._log_z(gap) - self.raw
        return torch.where(tied, tie, chosen)

    def _log_z(self, gap: Tensor) -> Tensor:
        return torch.logsumexp(torch.stack([gap / 2, -gap / 2, self.raw.expand_as(gap)]), 0)

    def step(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Move a learned parameter down its gradient; `mean` averages over the processes.

        Plain gradient descent: nothing but the value has to be kept for a run that goes on.
        """
        if self.raw.grad is None:
            return
        with torch.no_grad():
            self.raw -= RATE * mean(self.raw.grad)
        self.raw.grad = None
