"""LLMBar (princeton-nlp): which of two outputs follows the instruction; a natural and four adversarial subsets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.data.samples import Preferred
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.aggregate import (
    Figures,
    credit,
    equal_weights,
    gaps,
    group_names,
    invalid_verdicts,
    part_note,
    scores,
    whole_or_part,
    with_published_rule,
)
from rm_gallery.core.evaluate.benchmarks.base import (
    Benchmark,
    Comparison,
    Item,
    Judged,
    Shares,
    register_benchmark,
)
from rm_gallery.core.evaluate.benchmarks.reading import (
    Place,
    Row,
    checked_items,
    make_item,
    one_of,
    read_items,
    response,
)

SIZES = {"natural": 100, "neighbor": 134, "gptinst": 92, "gptout": 47, "manual": 46}
ADVERSARIAL = {name: size for name, size in SIZES.items() if name != "natural"}
LABELS: dict[int, Preferred] = {1: "A", 2: "B"}


@register_benchmark
class LLMBar(Benchmark):
    """The mean of the accuracies in the two orders, of each subset; overall the mean of the five subsets."""

    name: ClassVar[str] = "llmbar"
    source: ClassVar[str] = (
        "github.com/princeton-nlp/LLMBar: README.md (format), LLMEvaluator/evaluate.py (correct_average, the rule for "
        "ratings); averages over subsets as in the tables of arXiv:2310.07641"
    )
    verified: ClassVar[bool] = True

    def load(self, path: Path) -> list[Item]:
        """Of a file `…/SUBSET/dataset.json`, or of all of them below a folder."""
        if not path.is_dir():
            return read_items(path, _item)
        files = [file for file in sorted(path.rglob("dataset.json")) if _subset(file) in SIZES]
        if not files:
            raise DataError(
                f"{path} holds no dataset.json of LLMBar; expected Natural/dataset.json and "
                "Adversarial/{Neighbor,GPTInst,GPTOut,Manual}/dataset.json below it"
            )
        return checked_items([item for file in files for item in read_items(file, _item)], path)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        strict = _shares(items, judged, 0.0)
        if not (scores(judged) and invalid_verdicts(judged)):
            return strict
        rule = "the publisher counts a pair whose ratings cannot be read as half right"
        return with_published_rule(strict, _shares(items, judged, 0.5), rule)


def _shares(items: Sequence[Item], judged: Sequence[Judged], invalid: float) -> Shares:
    figures = Figures(items, judged)
    # of two equal ratings the publisher says 1 in one order and 2 in the other
    tie = 0.5 if scores(judged) else 0.0
    right = [
        credit(found, 0, item.comparisons[0].truth, tie=tie, invalid=invalid)
        for item, found in zip(items, judged, strict=True)
    ]
    subsets = [item.tags["subset"] for item in items]
    names = group_names(subsets, SIZES)
    present = figures.add_by_tag("subset", right, names)
    missing = gaps(subsets, SIZES)
    headline = whole_or_part("overall", missing)
    averages = {headline: equal_weights(present)}
    if adversarial := [name for name in present if name != names["natural"]]:
        averages[whole_or_part("adversarial", gaps(subsets, ADVERSARIAL))] = equal_weights(adversarial)
    return figures.shares(headline, averages, [part_note("LLMBar", missing)])


def _subset(file: Path) -> str:
    return file.parent.name.lower()


def _item(row: Row, place: Place) -> Item:
    subset = _subset(place.path)
    if subset not in SIZES:
        raise BadRow(
            f"the folder of the file says the subset, one of {', '.join(SIZES)}", place.path.parent.name
        )
    answers = [response(row, "output_1"), response(row, "output_2")]
    comparison = Comparison(0, 1, one_of(row, "label", LABELS))
    tags = {"subset": subset}
    return make_item(f"{subset}/{place.number}", row.get("input"), answers, [comparison], tags=tags)
