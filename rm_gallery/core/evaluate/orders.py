"""Does it matter which response is shown first? The figures of a judge that saw every pair in both orders.

A verdict is *decided* where it prefers one of the responses, and *legal* where it is decided or a tie. The verdict on
the swapped pair is mirrored back before the two are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.evaluate.benchmarks.base import Item, Judged
from rm_gallery.core.judge.orders import Outcome

Array = NDArray[np.float64]
DECIDED = ("A", "B")

_NO_ORDER = ", or the judge was not shown both orders"
_NONE = "there are no comparisons"
ORDER_COLUMNS = {
    "flip_rate": f"no comparison has a legal verdict in both orders{_NO_ORDER}",
    "first_position_rate": "no verdict prefers one of the responses, or the judge was shown no order",
    **dict.fromkeys(("two_order_accuracy", "inconsistent_rate", "reversal_rate"), f"{_NONE}{_NO_ORDER}"),
    "tie_rate": _NONE,
    "invalid_rate": _NONE,
}
"""Each figure of `order_columns`, and why it can be undefined."""


def order_columns(
    items: Sequence[Item], judged: Sequence[Judged]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What every benchmark says about the two orders, as `columns` and `denominators` of a `Shares`.

    Over comparisons: `flip_rate`, of those with a legal verdict in both orders the share where the two differ.
    `two_order_accuracy`, the share where both are the truth. `inconsistent_rate`, the share where the two differ, a
    tie and a missing verdict counting as verdicts of their own (as JudgeBench counts it). `reversal_rate`, the share
    where both are decided and opposite.

    Over verdicts, two a comparison: `first_position_rate`, of the decided ones the share that prefers the response
    shown first. `tie_rate`, the share of ties. `invalid_rate`, the share without a legal verdict.

    A model that scores is shown no order and has one opinion of a comparison: it has a part only in the last two,
    once a comparison. So has a judge that was asked in one order only, and in `first_position_rate`.
    """
    counts = [_counts(item, found) for item, found in zip(items, judged, strict=True)]
    columns, denominators = {}, {}
    for i, name in enumerate(ORDER_COLUMNS):
        pairs = np.array([count[i] for count in counts], dtype=np.float64).reshape(-1, 2)
        columns[name] = np.where(pairs[:, 1] > 0, pairs[:, 0], np.nan)
        denominators[name] = pairs[:, 1]
    return columns, denominators


def _counts(item: Item, judged: Judged) -> list[tuple[int, int]]:
    """(how many, of how many) in one item, in the order of `ORDER_COLUMNS`."""
    outcomes, size = judged.outcomes, len(judged.outcomes)
    if judged.values is not None:
        opinions = [outcome.preferred for outcome in outcomes]
        return [(0, 0)] * 5 + [(opinions.count("tie"), size), (opinions.count(None), size)]
    shown = [(outcome.forward, "A") for outcome in outcomes]  # each verdict, and what stood first
    if not judged.one_order:
        shown += [(outcome.swapped, "B") for outcome in outcomes]
    verdicts = [verdict for verdict, _ in shown]
    first = (sum(v == at for v, at in shown), sum(v in DECIDED for v in verdicts))
    of_verdicts = [(verdicts.count("tie"), len(shown)), (verdicts.count(None), len(shown))]
    if judged.one_order:
        return [(0, 0), first, *[(0, 0)] * 3, *of_verdicts]
    legal = [o for o in outcomes if o.forward is not None and o.swapped is not None]
    right = sum(o.forward == o.swapped == c.truth for o, c in zip(outcomes, item.comparisons, strict=True))
    return [
        (sum(o.forward != o.swapped for o in legal), len(legal)),
        first,
        (right, size),
        (sum(o.forward != o.swapped for o in outcomes), size),
        (sum(o.forward != o.swapped for o in outcomes if _decided(o)), size),
        *of_verdicts,
    ]


def _decided(outcome: Outcome) -> bool:
    return outcome.forward in DECIDED and outcome.swapped in DECIDED
