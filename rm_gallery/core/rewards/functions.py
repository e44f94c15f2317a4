"""The built-in rewards. All are at most 1, reached only by the right verdict."""

from __future__ import annotations

import math


def exp_decay(predicted: float, true: float, *, k: float = 2.0, max_error: float = 4.0) -> float:
    """`exp(-k · |predicted - true| / max_error)`, in (0, 1].

    The reward of HelpSteer2's pointwise recipe: with the default `k` the worst valid answer earns
    e^-2 ≈ 0.135.

    >>> exp_decay(3, 3), round(exp_decay(0, 4), 3)
    (1.0, 0.135)
    """
    return math.exp(-k * abs(predicted - true) / max_error)


def linear_decay(predicted: float, true: float, *, max_error: float = 4.0) -> float:
    """`1 - |predicted - true| / max_error`, not below 0.

    >>> linear_decay(1, 3)
    0.5
    """
    return max(0.0, 1.0 - abs(predicted - true) / max_error)


def exact_match(predicted: object, true: object) -> float:
    """1 where the verdict is the truth, else 0.

    >>> exact_match(3, 3), exact_match(2, 3)
    (1.0, 0.0)
    """
    return float(predicted == true)


def preference_match(predicted: str, true: str, *, tie: float = 0.0) -> float:
    """1 for the right preference; `tie` where exactly one of verdict and truth is a tie; else 0.

    >>> preference_match("A", "A"), preference_match("tie", "A", tie=0.5), preference_match("B", "A")
    (1.0, 0.5, 0.0)
    """
    if predicted == true:
        return 1.0
    return tie if "tie" in (predicted, true) else 0.0
