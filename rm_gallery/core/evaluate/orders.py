"""Does it matter which response is shown first? The figures of a judge that saw every pair in both orders.

A verdict is *decided* where it prefers one of the responses, and *legal* where it is decided or a tie. The verdict on
the swapped pair is mirrored back before the two are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.evaluate.benchmarks.base import Item, Judged, Outcome

Array = NDArray[np.float64]
DECIDED = ("A", "B")

ORDER_COLUMNS = {
    "flip_rate": "no comparison has a legal verdict in both orders",
    "first_position_rate": "no verdict prefers one of the responses",
    "two_order_accuracy": "there are no comparisons",
    "inconsistent_rate": "there are no comparisons",
    "reversal_rate": "there are no comparisons",
    "tie_rate": "there are no comparisons",
    "invalid_rate": "there are no comparisons",
}
"""Each figure of `order_columns`, and why it can be undefined for a judge that compares."""
SCORED = "a model that scores each response by itself is shown no order"
"""Why the first five are undefined for one that does not."""


def order_columns(
    items: Sequence[Item], judged: Sequence[Judged]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What every benchmark says about the two orders, as `columns` and `denominators` of a `Shares`.

    Over comparisons: `flip_rate`, of those with a legal verdict in both orders the share where the two differ.
    `two_order_accuracy`, the share where both are the truth. `inconsistent_rate`, the share where the two are not one
    and the same decided verdict (ties and illegal ones included). `reversal_rate`, the share where both are decided
    and opposite.

    Over verdicts, two a comparison: `first_position_rate`, of the decided ones the share that prefers the response
    shown first. `tie_rate`, the share of ties. `invalid_rate`, the share without a legal verdict.

    A model that scores is shown no order and has one opinion of a comparison: it has a part only in the last two,
    once a comparison.
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
    outcomes = judged.outcomes
    if judged.values is not None:
        opinions = [outcome.preferred for outcome in outcomes]
        ties, invalid = opinions.count("tie"), opinions.count(None)
        return [(0, 0)] * 5 + [(ties, len(opinions)), (invalid, len(opinions))]
    verdicts = [verdict for outcome in outcomes for verdict in (outcome.forward, outcome.swapped)]
    legal = [o for o in outcomes if o.forward is not None and o.swapped is not None]
    decided = sum(verdict in DECIDED for verdict in verdicts)
    first = sum((o.forward == "A") + (o.swapped == "B") for o in outcomes)
    right = sum(o.forward == o.swapped == c.truth for o, c in zip(outcomes, item.comparisons, strict=True))
    size = len(outcomes)
    return [
        (sum(o.forward != o.swapped for o in legal), len(legal)),
        (first, decided),
        (right, size),
        (sum(not _agree(o) for o in outcomes), size),
        (sum(o.forward != o.swapped for o in outcomes if _decided(o)), size),
        (verdicts.count("tie"), len(verdicts)),
        (verdicts.count(None), len(verdicts)),
    ]


def _decided(outcome: Outcome) -> bool:
    return outcome.forward in DECIDED and outcome.swapped in DECIDED


def _agree(outcome: Outcome) -> bool:
    return _decided(outcome) and outcome.forward == outcome.swapped
