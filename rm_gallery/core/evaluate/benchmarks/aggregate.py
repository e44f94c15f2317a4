"""From outcomes to a benchmark's figures: credits, columns by group, and what is said of a part of a benchmark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.data.samples import Preferred
from rm_gallery.core.evaluate.benchmarks.base import Item, Judged, Shares, correct
from rm_gallery.core.evaluate.orders import order_columns

Array = NDArray[np.float64]
Part = tuple[float, float]
"""What a unit adds to a figure's sum, and over how many."""


class Figures:
    """The columns of a `Shares`, one entry an item, added by name.

    Every benchmark has those of `order_columns`, and `combined_accuracy`: the share of comparisons in which both
    orders together (`Outcome.preferred`) are the truth.
    """

    def __init__(self, items: Sequence[Item], judged: Sequence[Judged]) -> None:
        self.items, self.judged = items, judged
        self.columns: dict[str, Array] = {}
        self.denominators: dict[str, Array] = {}
        right = [correct(item, found) for item, found in zip(items, judged, strict=True)]
        self._common = [(float(sum(each)), float(len(each))) for each in right]

    def add(self, name: str, entries: Iterable[float | Part | None]) -> None:
        """A figure that is a mean over items, or with `Part`s a ratio of sums; None: the item has no part in it."""
        parts = [
            (math.nan, 0.0) if entry is None else entry if isinstance(entry, tuple) else (entry, 1.0)
            for entry in entries
        ]
        values, of = np.array(parts, dtype=np.float64).reshape(-1, 2).T
        self.columns[name] = np.where(of > 0, values, np.nan)
        if not np.isin(of, (0, 1)).all():
            self.denominators[name] = of

    def add_by_tag(
        self, tag: str, entries: Sequence[float | Part | None], names: Mapping[str, str] | None = None
    ) -> list[str]:
        """One figure for each value of a tag, over the items that have it; returns the figures' names.

        `names` gives the values that have a figure, in their order, and its name. Default: all values, by themselves.
        """
        values = [item.tags.get(tag) for item in self.items]
        if names is None:
            names = {value: value for value in dict.fromkeys(values) if value is not None}
        present = [value for value in names if value in values]
        for value in present:
            own = [entry if v == value else None for entry, v in zip(entries, values, strict=True)]
            self.add(names[value], own)
        return [names[value] for value in present]

    def shares(
        self, headline: str, averages: Mapping[str, Mapping[str, float]], notes: Iterable[str | None] = ()
    ) -> Shares:
        """All of it, with the columns that every benchmark has after its own."""
        self.add("combined_accuracy", [part if part[1] else None for part in self._common])
        columns, denominators = order_columns(self.items, self.judged)
        return Shares(
            unit=tuple(item.unique_id for item in self.items),
            cluster=tuple(item.cluster for item in self.items),
            columns={**self.columns, **columns},
            averages=averages,
            headline=headline,
            notes=tuple(note for note in notes if note),
            denominators={**self.denominators, **denominators},
        )


def verdicts(judged: Judged, comparison: int) -> tuple[Preferred | None, ...]:
    """The verdicts on a comparison, in its own terms: of both orders, or of the one that was asked."""
    found = judged.outcomes[comparison]
    return (found.forward,) if judged.one_order else (found.forward, found.swapped)


def credit(
    judged: Judged, comparison: int, truth: Preferred, *, tie: float = 0.0, invalid: float = 0.0
) -> float:
    """How right a judge is on a comparison in one order, as the mean over the orders: 1 or 0 a verdict.

    This is what a benchmark that asks in one order, drawn or fixed, gives on average. `tie` and `invalid` are what a
    tie and a missing verdict earn where the truth is A or B.
    """
    earned = {truth: 1.0, None: invalid}
    if truth != "tie":
        earned["tie"] = tie
    given = verdicts(judged, comparison)
    return sum(earned.get(verdict, 0.0) for verdict in given) / len(given)


def scores(judged: Sequence[Judged]) -> bool:
    """Whether it is a model that scores; all items of a run are judged alike."""
    return any(found.values is not None for found in judged)


def invalid_verdicts(judged: Sequence[Judged]) -> int:
    """How many verdicts on comparisons are missing; of a model that scores, how many opinions."""
    return sum(
        (verdicts(found, i)[:1] if found.values is not None else verdicts(found, i)).count(None)
        for found in judged
        for i in range(len(found.outcomes))
    )


def whole_or_part(name: str, gaps: str | None) -> str:
    """The name of a figure over a whole benchmark; over a part of it one that nobody takes for the published."""
    return name if gaps is None else f"{name}_partial"


def gaps(found: Iterable[str], whole: Mapping[str, int]) -> str | None:
    """Which groups of a benchmark are not as large as published ("0 of 228 code"); None where all are.

    `found` is each item's group, `whole` the published number of items in each.
    """
    counts = Counter(found)
    wrong = [f"{counts[name]} of {size} {name}" for name, size in whole.items() if counts[name] != size]
    return ", ".join(wrong) or None


def group_names(
    found: Sequence[str], whole: Mapping[str, int], names: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The name of each group's figure, with `_partial` where the group is not as large as published."""
    return {
        group: whole_or_part(group if names is None else names[group], gaps(found, {group: size}))
        for group, size in whole.items()
    }


def part_note(benchmark: str, gaps: str | None) -> str | None:
    """The sentence about a part of a benchmark."""
    if gaps is None:
        return None
    return f"This is not the whole of {benchmark} ({gaps}): no figure named _partial is the published one."


def figure(shares: Shares, name: str) -> float:
    """The value of a figure; NaN where it is undefined."""
    if name in shares.averages:
        weights = shares.averages[name]
        return sum(weight * figure(shares, column) for column, weight in weights.items()) / sum(
            weights.values()
        )
    values = shares.columns[name]
    of = shares.denominators.get(name, np.ones(len(values)))
    there = ~np.isnan(values)
    total = float(of[there].sum())
    return float(values[there].sum()) / total if total > 0 else math.nan


def with_published_rule(strict: Shares, published: Shares, rule: str) -> Shares:
    """`strict`, in which a missing verdict earns nothing, with a note on the publisher's `rule` and its figure."""
    name = strict.headline
    note = (
        f"A missing verdict earns nothing here; {rule}, which makes `{name}` {figure(published, name):.4f}."
    )
    return replace(strict, notes=(*strict.notes, note))


def equal_weights(names: Iterable[str]) -> dict[str, float]:
    """Weights of a plain mean of figures."""
    return dict.fromkeys(names, 1.0)
