"""The loss of method `exact` for a judge that reasons: sampled reasonings, and the expectation over what follows each.

For a prompt x the model writes reasonings z_1 … z_n, and V_i is the expected reward of the verdict behind z_i, as without
reasoning (`exact_objective.py`); of a reasoning that comes to no end it is `invalid_reward`. The expected reward is
J(x) = E_z[V(z)], and its gradient

    ∇J = E_z[ V(z) ∇ log p(z) + ∇V(z) ]

The mean over the samples of A_i ∇ log p(z_i) + ∇V_i is an estimate of it without bias, where A_i = V_i less the mean V of
the *other* samples: n / (n - 1) times V_i less the mean of all. It is what GRPO estimates with that baseline, the verdict
integrated out (Rao and Blackwell), so that its variance is not above that of whole answers. Both terms are sums over a
sample and means over samples: they would not fit together were the first divided by the number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rm_gallery.core.models.reasonings import Asked, Weighed
from rm_gallery.core.train.local.exact_objective import Objective

_TINY = 1e-4
"""Added to a standard deviation, as TRL does."""
Figures = dict[str, Tensor]


@dataclass(frozen=True)
class ReasonedLoss:
    """The loss of prompts with `n` reasonings each.

    Attributes:
        clip: ratios of a token's probabilities count from 1 - clip to 1 + clip.
        by_std: divide what a prompt teaches by the standard deviation of its rewards.
    """

    objective: Objective
    n: int
    clip: float
    by_std: bool

    def __call__(
        self,
        asked: Asked,
        found: Weighed,
        truths: Tensor,
        reference: Weighed | None = None,
        old: Tensor | None = None,
    ) -> tuple[Tensor, Figures]:
        """The loss over S samples, those of a prompt one after the other, and the figures by TRL's names.

        Args:
            truths: (S,), the positions of the labels among the verdicts.
            reference: of the starting model; None only where `kl_coef` is 0.
            old: (N,), the tokens' log-probabilities when they were written; None where the weights are the same.
        """
        device = truths.device
        lengths = torch.tensor([len(each.tokens) for each in asked.reasonings], device=device)
        owner = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
        ended = [i for i, each in enumerate(asked.reasonings) if each.verdicts is not None]
        closed = torch.tensor(ended, dtype=torch.long, device=device)

        def per_sample(values: Tensor) -> Tensor:
            return torch.zeros(len(lengths), dtype=torch.float64, device=device).index_add(
                0, owner, values.double()
            )

        outcome, variance = self._outcome(found, truths, closed, reference)
        weight, advantage, spread = self._advantage(outcome["reward"].detach(), variance)
        token = found.tokens.double()
        ratio = (token - (token.detach() if old is None else old.double())).exp()
        a = advantage[owner]
        policy = torch.minimum(ratio * a, ratio.clamp(1 - self.clip, 1 + self.clip) * a)
        reward = outcome["reward"]
        paid = reward.detach() + weight * (reward - reward.detach())  # the weight is of its gradient
        loss = -(per_sample(policy) + paid).mean()
        figures = {**outcome, "entropy": outcome["entropy"] + per_sample(found.entropy)}
        if reference is not None:
            d = reference.tokens.double() - token
            figures["kl"] = outcome["kl"] + per_sample(d.exp() - d - 1)
            loss = loss + self.objective.kl_coef * figures["kl"].mean()
        cut = ((ratio > 1 + self.clip) & (a > 0)) | ((ratio < 1 - self.clip) & (a < 0))
        figures |= {
            "reward_std": spread,
            "frac_reward_zero_std": (spread <= 1e-8).double(),
            "clip_ratio/region_mean": per_sample(cut) / lengths.clamp(min=1),
            "completions/mean_length": lengths.double(),
            "completions/clipped_ratio": torch.ones_like(spread[:1]).sub(len(ended) / len(lengths)),
        }
        return loss, {name: value.detach().mean() for name, value in figures.items()}

    def _outcome(
        self, found: Weighed, truths: Tensor, closed: Tensor, reference: Weighed | None
    ) -> tuple[Figures, Tensor]:
        """What each sample earns, and its figures, (S,); the variance of one verdict's reward behind it."""
        whole = self.objective.none(truths)
        variance = torch.zeros_like(whole["reward"])
        if not len(closed):
            return whole, variance
        own = truths.index_select(0, closed)
        each = self.objective.each(found.verdicts, own, None if reference is None else reference.verdicts)
        if self.by_std:
            within = self.objective.variance(found.verdicts.detach(), own)
            variance = variance.index_copy(0, closed, within)
        return {name: whole[name].index_copy(0, closed, value) for name, value in each.items()}, variance

    def _advantage(self, reward: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weight of each sample's prompt and its advantage, (S,), and the standard deviation of each prompt's V.

        GRPO's group has rewards of single verdicts. Their variance is that of V, and within a reasoning that of its
        verdicts: with the first alone, reasonings that do not matter would be compared through a magnifying glass.
        """
        groups = reward.view(-1, self.n)
        spread = groups.std(1)
        advantage = (groups - groups.mean(1, keepdim=True)) * (self.n / (self.n - 1))
        weight = torch.ones_like(spread)
        if self.by_std:
            weight = 1 / ((spread**2 + variance.view(-1, self.n).mean(1)).sqrt() + _TINY)
        return weight.repeat_interleave(self.n), (advantage * weight[:, None]).flatten(), spread
