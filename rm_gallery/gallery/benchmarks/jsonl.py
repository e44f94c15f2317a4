"""A benchmark of one's own: prompts, responses, and which is better, one JSON object a line.

{"prompt": "…", "responses": ["…", "…"], "preferred": "A"}
{"messages": [{"role": "user", "content": "…"}], "responses": ["…", "…", "…"], "labels": [3, 1, 1], "tags": {"kind": "code"}}
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.evaluate.benchmarks.aggregate import Figures
from rm_gallery.core.evaluate.benchmarks.base import (
    Benchmark,
    Comparison,
    Item,
    Judged,
    Shares,
    register_benchmark,
)
from rm_gallery.core.evaluate.benchmarks.labelled import accuracies
from rm_gallery.core.evaluate.benchmarks.reading import (
    Place,
    Row,
    make_item,
    one_of,
    read_items,
    response_list,
)

_PREFERRED = {"A": "A", "B": "B", "tie": "tie"}


@register_benchmark
class JsonLines(Benchmark):
    """`accuracy_untied`, `accuracy_untied_half` and `accuracy` as for HelpSteer2, and the first by each tag."""

    name: ClassVar[str] = "jsonl"
    source: ClassVar[str] = "this project: docs/benchmarks.md"
    verified: ClassVar[bool] = True

    def load(self, path: Path) -> list[Item]:
        return read_items(path, _item)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        figures = Figures(items, judged)
        untied = accuracies(figures)
        for tag in sorted({tag for item in items for tag in item.tags}):
            values = sorted({item.tags[tag] for item in items if tag in item.tags})
            figures.add_by_tag(tag, untied, {value: f"{tag}={value}" for value in values})
        return figures.shares("accuracy_untied", {})


def _item(row: Row, place: Place) -> Item:
    answers = response_list(row, "responses")
    if len(answers) < 2:
        raise BadRow("responses holds one text; a comparison needs two")
    if ("prompt" in row) == ("messages" in row):
        raise BadRow("exactly one of prompt and messages is needed")
    name = row.get("unique_id")
    return make_item(
        place.number if name is None else name,
        row.get("prompt", row.get("messages")),
        answers,
        _comparisons(row, len(answers)),
        tags=_tags(row.get("tags")),
    )


def _comparisons(row: Row, size: int) -> list[Comparison]:
    if ("preferred" in row) == ("labels" in row):
        raise BadRow("exactly one of preferred and labels is needed")
    if "labels" in row:
        labels = row["labels"]
        if not isinstance(labels, list) or len(labels) != size or not all(map(_is_number, labels)):
            raise BadRow(f"labels is not a list of {size} numbers, one a response", labels)
        return [
            Comparison(i, j, "tie" if labels[i] == labels[j] else "A" if labels[i] > labels[j] else "B")
            for i, j in combinations(range(size), 2)
        ]
    best = row["preferred"]
    if size == 2 and isinstance(best, str):
        return [Comparison(0, 1, one_of(row, "preferred", _PREFERRED))]
    if isinstance(best, bool) or not isinstance(best, int) or not 0 <= best < size:
        raise BadRow(
            "preferred is neither A, B or tie of two responses nor the position of the best, from 0", best
        )
    return [Comparison(best, other, "A") for other in range(size) if other != best]


def _tags(tags: Any) -> dict[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, dict):
        raise BadRow("tags is not an object of texts", tags)
    return {str(key): str(value) for key, value in tags.items() if value is not None}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
