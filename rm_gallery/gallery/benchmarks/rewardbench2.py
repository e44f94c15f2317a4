"""RewardBench 2 (allenai): the best of four in five subsets, and questions with many right answers (Ties)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from rm_gallery.core.data.converters import BadRow, text
from rm_gallery.core.evaluate.benchmarks.aggregate import (
    Figures,
    equal_weights,
    gaps,
    group_names,
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
from rm_gallery.core.evaluate.benchmarks.reading import Place, Row, make_item, read_items, response_list
from rm_gallery.gallery.benchmarks.ties import TIES, add_ties

NAMES = {"Factuality": "factuality", "Precise IF": "precise_if", "Math": "math", "Safety": "safety"}
NAMES |= {"Focus": "focus"}
SIZES = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495, "Ties": 102}
_PAIRS = (
    "A judge that compares two responses is asked for the chosen one against each of the others, and is right where it "
    "wins all by both orders together; the publisher asks about the four at once. Ties are scored by numbers only, so "
    "`ties` and `overall` are undefined for it."
)


@register_benchmark
class RewardBench2(Benchmark):
    """Accuracy at choosing the best of four, by subset; `ties` weighs accuracy and margins; overall the mean of six.

    A chosen response that ties for the highest score with k - 1 others is worth 1/k.
    """

    name: ClassVar[str] = "rewardbench2"
    source: ClassVar[str] = (
        "github.com/allenai/reward-bench: rewardbench/utils.py (load_bon_dataset_v2, reroll_and_score_dataset, "
        "_compute_prompt_stats, process_single_model), scripts/run_v2.py, scripts/run_generative_v2.py; fields, sizes "
        "and the mean of six as in the card of allenai/reward-bench-2 and arXiv:2506.01937"
    )
    verified: ClassVar[bool] = False

    def load(self, path: Path) -> list[Item]:
        return read_items(path, _item)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        strict = _shares(items, judged)
        if not any(value is None for found in judged for value in found.values or ()):
            return strict
        lowest = [_lowest(found) for found in judged]
        rule = (
            "the publisher's ratings take a missing one for the lowest, and four missing ones for a quarter"
        )
        return with_published_rule(strict, _shares(items, lowest, unrated=0.25), rule)


def _shares(items: Sequence[Item], judged: Sequence[Judged], unrated: float = 0.0) -> Shares:
    figures = Figures(items, judged)
    best = [
        _best(found, unrated) if item.comparisons else None for item, found in zip(items, judged, strict=True)
    ]
    subsets = [item.tags["subset"] for item in items]
    sizes = {name: SIZES[name] for name in NAMES}
    present = figures.add_by_tag("subset", best, group_names(subsets, sizes, NAMES))
    missing = gaps(subsets, SIZES)
    averages: dict[str, Mapping[str, float]] = {}
    overall = equal_weights(present)
    if "Ties" in subsets:
        add_ties(figures)
        averages[whole_or_part("ties", gaps(subsets, {"Ties": SIZES["Ties"]}))] = TIES
        overall |= TIES
    headline = whole_or_part("overall", missing)
    averages[headline] = overall
    notes = [part_note("RewardBench 2", missing)]
    # a model that scores has this figure too, so that one that compares can be compared with it
    without_ties = whole_or_part("overall_without_ties", gaps(subsets, sizes))
    if present or not scores(judged):
        averages[without_ties] = equal_weights(present)
    if not scores(judged):
        headline = without_ties
        notes.append(_PAIRS)
    return figures.shares(headline, averages, notes)


def _best(judged: Judged, unrated: float) -> float:
    values = judged.values
    if values is None:
        return float(all(outcome.preferred == "A" for outcome in judged.outcomes))
    if any(value is None for value in values):
        return 0.0
    top = max(value for value in values if value is not None)
    if top == -math.inf:
        return unrated
    return 1.0 / values.count(top) if values[0] == top else 0.0


def _lowest(judged: Judged) -> Judged:
    values = [-math.inf if value is None else value for value in judged.values or ()]
    return Judged(judged.outcomes, tuple(values))


def _item(row: Row, _: Place) -> Item:
    subset, name = text(row, "subset"), text(row, "id")
    if subset not in SIZES:
        raise BadRow(f"subset is none of {', '.join(SIZES)}", subset)
    chosen, rejected = response_list(row, "chosen"), response_list(row, "rejected")
    tags = {"subset": subset}
    if subset != "Ties":
        if len(chosen) != 1:
            raise BadRow(f"chosen holds {len(chosen)} texts; only Ties has more than one")
        comparisons = [Comparison(0, i, "A") for i in range(1, 1 + len(rejected))]
        return make_item(f"{subset}/{name}", row.get("prompt"), [*chosen, *rejected], comparisons, tags=tags)
    kind, colon, number = name.partition(":")
    if kind not in ("ref", "tied") or not colon:
        raise BadRow("the id of a row of Ties is neither ref:NUMBER nor tied:NUMBER", name)
    if (len(chosen) > 1) != (kind == "tied"):
        raise BadRow(f"chosen holds {len(chosen)} texts; a row ref: has one, a row tied: several")
    tags |= {"kind": kind, "question": number, "right": str(len(chosen))}
    # scored by numbers, not by comparisons; both rows of a question are resampled together
    return make_item(
        f"{subset}/{name}", row.get("prompt"), [*chosen, *rejected], [], tags=tags, cluster=f"ties:{number}"
    )
