"""Answers that cost nothing, defined once: `rmg data describe`, evaluation and the benchmarks all use these."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from rm_gallery.core.data.samples import Preferred

V = TypeVar("V")


def majority(counts: Mapping[V, int], scale: Iterable[V]) -> V:
    """The most frequent label; where several are, the first of the scale."""
    return max(scale, key=lambda verdict: counts.get(verdict, 0))


def best_constant(
    counts: Mapping[V, int], scale: Iterable[V], reward: Callable[[V, V], float]
) -> tuple[V, float]:
    """The verdict with the highest mean reward against labels with these counts, and that mean.

    Where several are best, the first of the scale. Labels are added up in the order of the scale.

    Raises:
        ValueError: nothing is counted.
    """
    verdicts: Sequence[V] = tuple(scale)
    total = sum(counts.values())
    if not total:
        raise ValueError("there is no best constant without labels")
    labels = [label for label in verdicts if counts.get(label)]
    means = {v: sum(counts[label] * reward(v, label) for label in labels) / total for v in verdicts}
    best = max(verdicts, key=lambda verdict: means[verdict])
    return best, means[best]


def longer(a: str, b: str) -> Preferred:
    """The longer of two responses in characters; a tie where both are as long."""
    return "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B"


def coin(name: str) -> Preferred:
    """A or B, each for half of all names, and always the same one for the same name."""
    return "A" if hashlib.sha256(name.encode(errors="surrogatepass")).digest()[0] % 2 else "B"
