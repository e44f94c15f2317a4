"""Labelled rows as comparisons: for a model that is asked about one response at a time, or in another way than the rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import ClassVar

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import Message, Pair, Preferred, Row, Sample, response_count
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.aggregate import Figures, Part, credit
from rm_gallery.core.evaluate.benchmarks.base import Benchmark, Comparison, Item, Judged, Shares
from rm_gallery.core.evaluate.benchmarks.reading import checked_items, make_item


class LabelledPairs(Benchmark):
    """The pairs of a file of labelled rows; of rated responses, every two to the same prompt.

    The two orders of a pair are one comparison. Of rated responses the one with the higher label is better, and equal
    labels tie; the label is the first of `helpfulness` and of the row's own.
    """

    name: ClassVar[str] = "labelled"
    source: ClassVar[str] = "this project"
    verified: ClassVar[bool] = True

    def load(self, path: Path) -> list[Item]:
        return self.of_rows(load_rows(path))

    def of_rows(self, rows: Sequence[Row]) -> list[Item]:
        """The comparisons in `rows`. Raises `DataError` where a label is missing, or there is not one pair."""
        items = (
            _of_pairs(rows) if response_count(rows[0]) == 2 else pairs_of_ratings(map(Sample.from_row, rows))
        )
        if not items:
            raise DataError(
                "no two of these rated responses answer the same prompt: there is nothing to compare"
            )
        return checked_items(items, Path(self.name))

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        figures = Figures(items, judged)
        accuracies(figures)
        return figures.shares("accuracy_untied", {})


def accuracies(figures: Figures) -> list[Part]:
    """Add the figures of pairs that may tie, over comparisons, as means over the orders; return the first's entries.

    `accuracy_untied` is over the pairs that are labelled A or B, where a tie is wrong; `accuracy_untied_half` counts
    it half right there. `accuracy` is three-way, over all pairs.
    """
    cases = list(zip(figures.items, figures.judged, strict=True))
    untied = [_untied(item, found, 0.0) for item, found in cases]
    figures.add("accuracy_untied", untied)
    figures.add("accuracy_untied_half", [_untied(item, found, 0.5) for item, found in cases])
    figures.add("accuracy", [_three_way(item, found) for item, found in cases])
    return untied


def _three_way(item: Item, found: Judged) -> Part:
    right = sum(credit(found, i, comparison.truth) for i, comparison in enumerate(item.comparisons))
    return right, float(len(item.comparisons))


def _untied(item: Item, found: Judged, tie: float) -> Part:
    untied = [(i, c.truth) for i, c in enumerate(item.comparisons) if c.truth != "tie"]
    return sum(credit(found, i, truth, tie=tie) for i, truth in untied), float(len(untied))


def better(first: int, second: int) -> Preferred:
    return "tie" if first == second else "A" if first > second else "B"


def _of_pairs(rows: Sequence[Row]) -> list[Item]:
    found: dict[tuple[tuple[Message, ...], frozenset[str]], Item] = {}
    for row in rows:
        pair = Pair.from_row(row)
        key = (pair.input, frozenset((pair.response_a, pair.response_b)))
        answers, compared = [pair.response_a, pair.response_b], [Comparison(0, 1, pair.preferred)]
        found.setdefault(key, make_item(pair.unique_id, pair.input, answers, compared))
    return list(found.values())


def pairs_of_ratings(samples: Iterable[Sample]) -> list[Item]:
    """Every two responses to the same prompt; a prompt with one response makes no pair."""
    together: dict[tuple[Message, ...], list[Sample]] = {}
    for sample in samples:
        together.setdefault(sample.input, []).append(sample)
    return [_item(rated) for rated in together.values() if len(rated) > 1]


def _item(rated: Sequence[Sample]) -> Item:
    labels = [_label(sample) for sample in rated]
    compared = [Comparison(i, j, better(labels[i], labels[j])) for i, j in combinations(range(len(rated)), 2)]
    tags = {"labels": " ".join(map(str, labels))}
    return make_item(rated[0].unique_id, rated[0].input, [s.response for s in rated], compared, tags=tags)


def _label(sample: Sample) -> int:
    labels = sample.labels
    if not labels:
        raise DataError(f"row {sample.unique_id!r} has no label")
    return labels.get("helpfulness", next(iter(labels.values())))
