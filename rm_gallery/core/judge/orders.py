"""Both orders of a pair, and what they come to together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rm_gallery.core.data.samples import _OTHER, Preferred
from rm_gallery.core.judge.answer import DIGITS, Answer

Order = Literal["forward", "swapped"]
ORDERS: tuple[Order, Order] = ("forward", "swapped")
LABELS: tuple[Preferred, ...] = ("A", "B", "tie")
"""The order of a pair's verdicts where no task says another."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a judge made of one comparison, in the comparison's own terms (A is `first`, whichever was shown first).

    A model that scores has one opinion: `forward` and `swapped` are the same there, and so is `preferred`.

    Attributes:
        forward: the verdict with `first` shown first; None where it was not legal or not given.
        swapped: the verdict with `second` shown first, mirrored back; None as above.
        preferred: both orders together: by the mean of the two distributions where there are any; else the verdict
            that both give, one order's where the other says tie, and `tie` where they contradict each other. None
            where an order has no verdict.
    """

    forward: Preferred | None
    swapped: Preferred | None
    preferred: Preferred | None


def outcome(forward: Answer, swapped: Answer, labels: Sequence[Any] = LABELS) -> Outcome:
    """The two answers about one comparison in the comparison's own terms.

    `labels` are the verdicts that the answers' probabilities are over, in their order.
    """
    first, second = forward.verdict, _OTHER.get(swapped.verdict)
    if first is None or second is None:
        return Outcome(first, second, None)
    one, other = forward.probabilities, mirror(swapped.probabilities, labels)
    if one is None or other is None:
        return Outcome(first, second, _together(first, second))
    total = {label: round(p + q, DIGITS) for label, p, q in zip(labels, one, other, strict=True)}
    return Outcome(first, second, _most_probable(total))


def mirror(probabilities: Sequence[float] | None, labels: Sequence[Any]) -> tuple[float, ...] | None:
    """A distribution over `labels` in the terms of the other order."""
    if probabilities is None:
        return None
    shown = dict(zip(labels, probabilities, strict=True))
    return tuple(shown[_OTHER[label]] for label in labels)


def _together(first: Preferred, second: Preferred) -> Preferred:
    if first == second or second == "tie":
        return first
    return second if first == "tie" else "tie"


def _most_probable(total: Mapping[Preferred, float]) -> Preferred:
    """The label with the largest sum; a draw of A and B is a tie, and A or B goes before an equally probable tie."""
    top = max(total.values())
    best = [label for label in LABELS if total[label] == top]
    return "tie" if best[:2] == ["A", "B"] else best[0]
