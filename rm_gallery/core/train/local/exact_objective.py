"""What method `exact` maximises: the expected reward of a written verdict, from the probabilities of all of them.

For a prompt x with truth t, p_v is the probability that the model writes the text of verdict v and ends its turn, at
temperature 1; they are not made relative to each other. o = 1 - Σ p_v is that of anything else.

    J(x) = Σ_v p_v · R(v, t) + o · invalid_reward - kl_coef · KL(x)

With a scoring rule (`core/rewards/scoring.py`) the first two terms are S(p, t). Nothing is sampled: this is the
expectation that GRPO estimates, and its gradient has no variance. In exchange only the verdicts' canonical texts count
as legal: one that is written otherwise (`4.0`, or behind other words) is part of o.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.rewards.scoring import RULES, Rule
from rm_gallery.core.tasks import Task
from rm_gallery.core.train.config import TrainConfig

MOST = 128
"""Verdicts: their tree lies behind every prompt, and each of its tokens is projected to the vocabulary."""
RESOLVED = 1e-6
"""The smallest o that is told from 0: it is a difference of sums in float32."""


@dataclass(frozen=True)
class Objective:
    """J of a task with K verdicts, by tables over truths and verdicts in the order of `Task.verdicts()`.

    Attributes:
        rewards: (K, K), of truth and verdict; None where a rule scores the distribution.
        errors: (K, K + 1), the absolute error of each verdict and of an invalid output; None where there is none.
        rule: scores the probabilities in the order of `ranked`.
        ranked: the verdicts' positions from one end of their scale to the other.
    """

    rewards: Tensor | None
    errors: Tensor | None
    rule: Rule | None
    ranked: tuple[int, ...]
    invalid_reward: float
    kl_coef: float

    @classmethod
    def of(cls, task: Task[Any], kl_coef: float) -> Objective:
        verdicts, pay = list(task.verdicts()), task.reward_config
        rewards = [[float(task.reward(v, t)) for v in verdicts] for t in verdicts]
        scored = [[task.scored(v, t) for v in (*verdicts, None)] for t in verdicts]
        errors = [[fields.get("abs_error") for fields in row] for row in scored]
        return cls(
            None if pay.is_rule else torch.tensor(rewards, dtype=torch.float64),
            None if errors[0][0] is None else torch.tensor(errors, dtype=torch.float64),
            RULES[pay.name] if pay.is_rule else None,
            tuple(verdicts.index(verdict) for verdict in task.ranked()),
            pay.invalid_reward,
            kl_coef,
        )

    def to(self, device: torch.device) -> Objective:
        def moved(table: Tensor | None) -> Tensor | None:
            return None if table is None else table.to(device)

        return Objective(
            moved(self.rewards),
            moved(self.errors),
            self.rule,
            self.ranked,
            self.invalid_reward,
            self.kl_coef,
        )

    def __call__(
        self, log_probs: Tensor, truths: Tensor, reference: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, -mean J over P prompts, and the figures that are logged.

        Args:
            log_probs: (P, K), of the verdicts' whole texts.
            truths: (P,), the positions of the labels among the verdicts.
            reference: (P, K), of the starting model; None only where `kl_coef` is 0.

        Returns:
            The loss, and by TRL's names the means of the expected reward, accuracy and absolute error of one written
            answer, of the mass of the legal verdicts, of KL and of entropy.
        """
        figures = {name: value.mean() for name, value in self.each(log_probs, truths, reference).items()}
        loss = -figures["reward"]
        if reference is not None:
            loss = loss + self.kl_coef * figures["kl"]
        return loss, {name: value.detach() for name, value in figures.items()}

    def each(self, log_probs: Tensor, truths: Tensor, reference: Tensor | None = None) -> dict[str, Tensor]:
        """What `__call__` takes the means of: each (P,)."""
        log_probs = log_probs.double()
        p = log_probs.exp()
        mass = p.sum(1)
        found = {
            "reward": self._reward(p, mass, truths),
            "accuracy": p.gather(1, truths[:, None]).squeeze(1),
            "parse_rate": mass,
        }
        if self.errors is not None:
            outcomes = torch.cat([p, (1 - mass)[:, None]], dim=1)
            found["mae"] = (outcomes * self.errors[truths]).sum(1)
        if reference is not None:
            found["kl"] = divergence(log_probs, reference.double())
        found["entropy"] = entropy(log_probs)
        return found

    def none(self, truths: Tensor) -> dict[str, Tensor]:
        """As `each`, of an answer that is certain to have no legal verdict."""
        zero = torch.zeros(len(truths), dtype=torch.float64, device=truths.device)
        nothing = zero[:, None].expand(-1, len(self.ranked))
        found = {
            "reward": self._reward(nothing, zero, truths),
            "accuracy": zero,
            "parse_rate": zero,
            "entropy": zero,
        }
        if self.errors is not None:
            found["mae"] = self.errors[truths, -1]
        return found if not self.kl_coef else {**found, "kl": zero}

    def variance(self, log_probs: Tensor, truths: Tensor) -> Tensor:
        """Of the reward of one answer, (P,); not of a rule, which pays none."""
        assert self.rewards is not None
        p = log_probs.double().exp()
        # around the mean, for a difference of squares loses what is small
        mean = self._reward(p, p.sum(1), truths)[:, None]
        legal = (p * (self.rewards[truths] - mean) ** 2).sum(1)
        other = (1 - p.sum(1)).clamp(min=0)
        return legal + other * (self.invalid_reward - mean.squeeze(1)) ** 2

    def _reward(self, p: Tensor, mass: Tensor, truths: Tensor) -> Tensor:
        if self.rule is not None:
            truth = torch.nn.functional.one_hot(truths, p.size(1)).to(p)
            ranked = list(self.ranked)
            scores: Tensor = self.rule(p[:, ranked], truth[:, ranked])
            return scores
        assert self.rewards is not None
        return (p * self.rewards[truths]).sum(1) + (1 - mass) * self.invalid_reward


def divergence(log_probs: Tensor, reference: Tensor) -> Tensor:
    """KL(p ‖ reference) over K + 1 outcomes, the verdicts and anything else: (P, K), (P, K) → (P,), in nats.

    All other texts being one outcome, it is at most the KL of the two models' whole distributions over answers, which no
    sum of a few terms can give (the log sum inequality): a lower bound. It sees any change in the verdicts and in the
    mass they have together, and not how the rest is spread.
    """
    ours, theirs = _other(log_probs), _other(reference)
    legal = (log_probs.exp() * (log_probs - reference)).sum(1)
    return legal + ours * (ours.log() - theirs.log())


def entropy(log_probs: Tensor) -> Tensor:
    """Of the K + 1 outcomes: (P, K) → (P,), in nats."""
    other = _other(log_probs)
    return -(log_probs.exp() * log_probs).sum(1) - other * other.log()


def _other(log_probs: Tensor) -> Tensor:
    return (1 - log_probs.exp().sum(1)).clamp(min=RESOLVED)


def check_exact(config: TrainConfig, task: Task[Any]) -> None:
    """Refuse what has no exact objective, or whose settings would have no effect. Raises `ConfigError`."""
    if task.think or config.model.reasoning_model:
        _check_reasoning(config)
    if config.rollout.temperature != 1:
        raise ConfigError(
            "method exact takes the model's own probabilities of verdicts: leave rollout.temperature at 1"
        )
    if not config.model.shared_prefix:
        raise ConfigError(
            "method exact has no computation without a shared prompt: leave model.shared_prefix at true"
        )
    if task.reward_config.by_source:
        raise ConfigError(
            f"reward.name {config.reward.name} asks for the row's data_source, and method exact has one table of rewards "
            "for all rows: use grpo"
        )
    count = _count(task)
    if not 2 <= count <= MOST:
        raise ConfigError(
            f"the task {task.name} has {count} legal verdicts, and method exact weighs from 2 to {MOST}: use grpo"
        )


def _check_reasoning(config: TrainConfig) -> None:
    """What only a judge that reasons asks for."""
    if config.rollout.n < 2:
        raise ConfigError(
            f"rollout.n is {config.rollout.n}, but method exact compares the reasonings that a judge writes to one "
            "prompt: use at least 2, better 4 or more"
        )
    if config.reward.name == "log_score":
        raise ConfigError(
            "reward.name log_score is minus infinity for a reasoning that comes to no verdict: use rps, or a reward of "
            "single verdicts"
        )
    if config.reward.is_rule and config.loss.advantage == "group_std":
        raise ConfigError(
            f"loss.advantage group_std divides by the standard deviation of the rewards of single verdicts, and "
            f"reward.name {config.reward.name} pays none: set loss.advantage to group_mean"
        )


def _count(task: Task[Any]) -> int:
    verdicts: Sequence[Any] = task.verdicts()
    try:
        return len(verdicts)
    except TypeError:
        raise ConfigError(
            f"the legal verdicts of the task {task.name} cannot be counted, and method exact weighs every one: use grpo"
        ) from None
