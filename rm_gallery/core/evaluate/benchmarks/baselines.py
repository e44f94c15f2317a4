"""What costs nothing on a benchmark: judges that never read the prompt, aggregated as the publisher aggregates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rm_gallery.core import trivial
from rm_gallery.core.data.samples import Preferred
from rm_gallery.core.evaluate.benchmarks.ask import question_key, scored
from rm_gallery.core.evaluate.benchmarks.base import Item, Judged
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.judge.orders import ORDERS, Outcome, outcome

BENCHMARK_BASELINES = {
    "first": "always the response shown first",
    "longer": "the response with more characters; equal lengths are a tie",
    "random": "a coin for each comparison and order, from the hash of its name",
}
"""Each baseline of a benchmark and its rule, in the order in which they are shown."""


def benchmark_baselines(items: Sequence[Item]) -> dict[str, tuple[str, list[Judged]]]:
    """name → (rule, what it makes of each item), for the benchmark's own `aggregate`.

    `longer` scores each response, as a scalar model does; the other two compare, in both orders.
    """
    judged = {
        "first": [_compared(item, lambda _: "A") for item in items],
        "longer": [scored(item, [float(len(response)) for response in item.responses]) for item in items],
        "random": [_compared(item, trivial.coin) for item in items],
    }
    return {name: (rule, judged[name]) for name, rule in BENCHMARK_BASELINES.items()}


def _compared(item: Item, choose: Callable[[str], Preferred]) -> Judged:
    """What a judge that sees only the name of a question says, in both orders."""

    def asked(index: int) -> Outcome:
        forward, swapped = (Answer(choose(question_key(item.unique_id, index, order))) for order in ORDERS)
        return outcome(forward, swapped)

    return Judged(tuple(asked(i) for i in range(len(item.comparisons))))
