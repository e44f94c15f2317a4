"""Proper scoring rules: rewards of a whole distribution over the verdicts, for method `exact`.

A rule is proper where no distribution earns more in expectation than the true one (Gneiting & Raftery 2007), so a
judge that is trained by it has a reason to be unsure, and to say how much. The expectation of a reward of single
verdicts has none: it is highest where the judge is certain of one verdict.

Each takes the probabilities (…, K) of the verdicts from one end of their scale to the other and the truth (…, K), 1
where the verdict is the label, else 0: NumPy arrays or tensors. The probabilities need not sum to 1; what is missing is
the probability of writing no legal verdict. Each gives rewards (…) of at most 1, and 1 to nothing but certainty of the
truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Rule = Callable[[Any, Any], Any]
"""(probabilities, truth) → reward."""

LOG_LIMIT = 20.0
"""In nats: what `log_score` is divided by. In an evaluation, a probability below e^-20 (2e-9) counts as that much."""
_SMALLEST = 1e-300


def rps(probabilities: Any, truth: Any) -> Any:
    """1 less the ranked probability score, divided by K - 1 (Epstein 1969; proper: Murphy 1969).

    RPS sums, over the K - 1 thresholds between neighbouring verdicts, (1 - the probability on the truth's side)². With
    nothing missing this is the familiar Σ (F - H)² over the cumulative shares of forecast and truth. What is missing is
    on the wrong side of every threshold: an answer without a legal verdict is worth 0, as the most distant verdict.

    Examples:
        >>> import numpy as np
        >>> truth = np.array([0.0, 1.0, 0.0])
        >>> [float(rps(np.array(p), truth)) for p in ([0, 1, 0], [0.5, 0.5, 0], [1, 0, 0], [0, 0.5, 0], [0, 0, 0])]
        [1.0, 0.875, 0.5, 0.75, 0.0]
    """
    below, reached = probabilities.cumsum(-1), truth.cumsum(-1)
    above = below[..., -1:] - below
    there = reached * below + (1 - reached) * above
    return 1 - ((1 - there[..., :-1]) ** 2).mean(-1)


def log_score(probabilities: Any, truth: Any) -> Any:
    """1 + log(probability of the truth) / `LOG_LIMIT` (Good 1952).

    The probability is not made relative to the other verdicts', so what is missing counts by itself, and the gradient is
    that of supervised training on the truth's text, divided by `LOG_LIMIT`. It is negative below e^-`LOG_LIMIT`: a limit
    there would leave an untrained model without a gradient. `score` has it.

    Examples:
        >>> import numpy as np
        >>> truth = np.array([0.0, 1.0])
        >>> [round(float(log_score(np.array(p), truth)), 3) for p in ([0, 1], [0.5, 0.5], [0, 0.5], [0, 1e-10])]
        [1.0, 0.965, 0.965, -0.151]
    """
    likelihood = (probabilities * truth).sum(-1).clip(min=_SMALLEST)
    return 1 + _log(likelihood) / LOG_LIMIT


RULES: dict[str, Rule] = {"rps": rps, "log_score": log_score}


def score(rule: Rule, ranked: Sequence[Any], probabilities: Sequence[float], true: Any) -> float:
    """What one distribution earns, not below 0; `probabilities` are of the verdicts in the order of `ranked`."""
    import numpy as np

    truth = np.array([float(verdict == true) for verdict in ranked])
    return max(0.0, float(rule(np.array(probabilities, dtype=float), truth)))


def certain(rule: Rule, ranked: Callable[[], Sequence[Any]]) -> Callable[..., float]:
    """(verdict, truth) → what a judge earns that is certain of the verdict: how a written one counts."""

    def reward(predicted: Any, true: Any, data_source: str = "unknown") -> float:
        verdicts = ranked()
        return score(rule, verdicts, [float(verdict == predicted) for verdict in verdicts], true)

    return reward


def _log(x: Any) -> Any:
    if hasattr(x, "log"):
        return x.log()
    import numpy as np

    return np.log(x)
