"""JudgeBench (ScalerLab): pairs with an objectively right response, judged in both orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rm_gallery.core.data.converters import text
from rm_gallery.core.data.samples import Preferred
from rm_gallery.core.evaluate.benchmarks.aggregate import (
    Figures,
    gaps,
    part_note,
    verdicts,
    whole_or_part,
)
from rm_gallery.core.evaluate.benchmarks.base import (
    Benchmark,
    Comparison,
    Item,
    Judged,
    Shares,
    register_benchmark,
)
from rm_gallery.core.evaluate.benchmarks.reading import Place, Row, make_item, one_of, read_items, response

CATEGORIES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}
"""What a `source` begins with → the category under which it is published."""
SPLITS = {"gpt-4o-2024-05-13": 350, "claude-3-5-sonnet-20240620": 270}
"""The published number of pairs by the model that wrote the responses; figures are published for each by itself."""
LABELS: dict[str, Preferred] = {"A>B": "A", "B>A": "B"}


@register_benchmark
class JudgeBench(Benchmark):
    """A pair is right where the verdicts of the two orders name the right response oftener than the other one."""

    name: ClassVar[str] = "judgebench"
    source: ClassVar[str] = (
        "github.com/ScalerLab/JudgeBench: README.md (format), utils/metrics.py compute_final_metrics (two-order rule)"
    )
    verified: ClassVar[bool] = True

    def load(self, path: Path) -> list[Item]:
        return read_items(path, _item)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        figures = Figures(items, judged)
        right = [_right(item, found) for item, found in zip(items, judged, strict=True)]
        models = Counter(item.tags["response_model"] for item in items)
        missing = gaps(models.elements(), {model: SPLITS[model] for model in models if model in SPLITS})
        if len(models) > 1 or not models.keys() <= SPLITS.keys():
            missing = missing or f"responses of {' and '.join(models)}"
        headline = whole_or_part("overall", missing)
        figures.add(headline, right)
        figures.add_by_tag(
            "category", right, {name: whole_or_part(name, missing) for name in CATEGORIES.values()}
        )
        return figures.shares(headline, {}, [part_note("JudgeBench", missing)])


def _item(row: Row, _: Place) -> Item:
    source = text(row, "source")
    category = next((name for start, name in CATEGORIES.items() if source.startswith(start)), source)
    tags = {
        "category": category,
        "source": source,
        "response_model": str(row.get("response_model") or "unknown"),
    }
    truth = one_of(row, "label", LABELS)
    answers = [response(row, "response_A"), response(row, "response_B")]
    return make_item(text(row, "pair_id"), row.get("question"), answers, [Comparison(0, 1, truth)], tags=tags)


def _right(item: Item, judged: Judged) -> float:
    truth = item.comparisons[0].truth
    other = "B" if truth == "A" else "A"
    given = verdicts(judged, 0)
    return float(given.count(truth) > given.count(other))
