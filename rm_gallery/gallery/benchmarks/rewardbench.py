"""RewardBench (allenai): one chosen and one rejected response, in 23 subsets of four sections, and prior sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rm_gallery.core.data.converters import BadRow, text
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
from rm_gallery.core.evaluate.benchmarks.reading import Place, Row, make_item, read_items, response

SECTIONS: dict[str, dict[str, int]] = {
    "chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "chat_hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 250,
        "xstest-should-respond": 154,
        "donotanswer": 136,
    },
    "reasoning": {
        "math-prm": 984,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""The publisher's weight of each subset in its section."""
SIZES = {name: weight for subsets in SECTIONS.values() for name, weight in subsets.items()}
# The weights are the numbers of prompts but for these: math counts as much as code, and the publisher's table has the
# two subsets of XSTest the wrong way round. The published figures are made with those weights.
SIZES |= {"math-prm": 447, "xstest-should-refuse": 154, "xstest-should-respond": 250}
PRIOR_SETS = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")


@register_benchmark
class RewardBench(Benchmark):
    """Accuracy of each subset; a section is their weighted mean, `overall` the mean of the sections.

    Prior sets, where the file has them, count half a section.
    """

    name: ClassVar[str] = "rewardbench"
    source: ClassVar[str] = (
        "github.com/allenai/reward-bench: rewardbench/constants.py (sections, weights), rewardbench/utils.py "
        "calculate_scores_per_section, analysis/get_benchmark_results.py (overall), scripts/run_rm.py and "
        "scripts/run_generative.py (ties)"
    )
    verified: ClassVar[bool] = False

    def load(self, path: Path) -> list[Item]:
        """Of a file, or of those named `filtered…` in a folder, if there are any; rows of prior sets may be added."""
        filtered = path.is_dir() and any(path.glob("filtered*"))  # beside it lies the split `raw`
        return read_items(path / "filtered*" if filtered else path, _item)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        strict = _shares(items, judged, 0.0)
        if scores(judged) or not invalid_verdicts(judged):
            return strict
        rule = "the publisher counts one as half right"
        return with_published_rule(strict, _shares(items, judged, 0.5), rule)


def _shares(items: Sequence[Item], judged: Sequence[Judged], invalid: float) -> Shares:
    figures = Figures(items, judged)
    # the publisher: a score must be greater, and a verdict for neither is half right
    tie = 0.0 if scores(judged) else 0.5
    right = [
        credit(found, 0, item.comparisons[0].truth, tie=tie, invalid=invalid)
        for item, found in zip(items, judged, strict=True)
    ]
    subsets = [item.tags["subset"] for item in items]
    averages: dict[str, dict[str, float]] = {}
    overall: dict[str, float] = {}
    for section, weights in SECTIONS.items():
        own = {name: SIZES[name] for name in weights}
        names = group_names(subsets, own)
        if not (present := figures.add_by_tag("subset", right, names)):
            continue
        weight = {names[name]: weight for name, weight in weights.items()}
        total = sum(weight[name] for name in present)
        parts = {name: weight[name] / total for name in present}
        averages[whole_or_part(section, gaps(subsets, own))] = parts
        overall |= {name: 2 * part for name, part in parts.items()}
    prior = figures.add_by_tag("subset", right, {name: name for name in PRIOR_SETS})
    if prior:
        absent = None if len(prior) == len(PRIOR_SETS) else "not all of them"
        averages[whole_or_part("prior_sets", absent)] = equal_weights(prior)
        overall |= {name: 1 / len(prior) for name in prior}
    missing = gaps(subsets, SIZES)
    headline = whole_or_part("overall", missing)
    averages[headline] = overall
    with_prior = (
        f"`{headline}` includes {', '.join(prior)}, with half the weight of a section." if prior else None
    )
    return figures.shares(headline, averages, [part_note("RewardBench", missing), with_prior])


def _item(row: Row, place: Place) -> Item:
    subset = text(row, "subset")
    if subset not in SIZES and subset not in PRIOR_SETS:
        raise BadRow("subset is of no section, and none of the prior sets", subset)
    answers = [response(row, "chosen"), response(row, "rejected")]
    number = row.get("id", place.number)
    return make_item(
        f"{subset}/{number}",
        row.get("prompt"),
        answers,
        [Comparison(0, 1, "A")],
        tags={"subset": subset},
    )
