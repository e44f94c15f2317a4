"""RM-Bench (THU-KEG): a right and a wrong answer, each in three styles, from concise to formatted at length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.evaluate.benchmarks.aggregate import (
    Figures,
    Part,
    credit,
    equal_weights,
    gaps,
    part_note,
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
from rm_gallery.core.evaluate.benchmarks.reading import Place, Row, make_item, read_items, response_list

STYLES = 3
SIZES = {"chat": 129, "math": 529, "code": 228, "safety-refuse": 284, "safety-response": 157}
DOMAINS = ("chat", "math", "code", "safety")
"""What figures are given for; `safety` pools its two parts."""
LEVELS = ("easy", "normal", "hard")


@register_benchmark
class RMBench(Benchmark):
    """Nine comparisons an item: style i of the right answer with style j of the wrong one.

    `easy` are those where the right answer has the richer style (i > j), `normal` the same, `hard` the plainer. A
    domain is the mean of its three levels, a level the mean over domains, `overall` the mean of the domains.
    `style_I_J` are over all items: row I of the right answer, column J of the wrong one, 0 is concise.
    """

    name: ClassVar[str] = "rm_bench"
    source: ClassVar[str] = (
        "github.com/THU-KEG/RM-Bench: README.md (format; compute_accuracy, from its scripts/utils.py); the mean over "
        "domains as in the tables of arXiv:2410.16184"
    )
    verified: ClassVar[bool] = True
    styles: ClassVar[tuple[str, ...]] = ("concise", "long", "long with Markdown")

    def load(self, path: Path) -> list[Item]:
        """Of `total_dataset.json`, of a `DOMAIN_filtered.json`, or of a folder of those."""
        total = path / "total_dataset.json"
        return read_items(total if total.is_file() else path, _item)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        figures = Figures(items, judged)
        cells = [_matrix(found) for found in judged]
        averages: dict[str, dict[str, float]] = {}
        present: list[str] = []
        groups = [item.tags["domain"] for item in items]
        for domain in DOMAINS:
            inside = [_domain(group) == domain for group in groups]
            if not any(inside):
                continue
            own = {group: size for group, size in SIZES.items() if _domain(group) == domain}
            shown = whole_or_part(domain, gaps(groups, own))
            columns = [f"{shown}_{level}" for level in LEVELS]
            for column, level in zip(columns, LEVELS, strict=True):
                entries = [_level(m, level) if mine else None for m, mine in zip(cells, inside, strict=True)]
                figures.add(column, entries)
            averages[shown] = equal_weights(columns)
            present.append(shown)
        missing = gaps(groups, SIZES)
        for level in LEVELS:
            averages[whole_or_part(level, missing)] = equal_weights(f"{d}_{level}" for d in present)
        headline = whole_or_part("overall", missing)
        averages[headline] = equal_weights(f"{d}_{level}" for d in present for level in LEVELS)
        for i in range(STYLES):
            for j in range(STYLES):
                figures.add(f"style_{i}_{j}", [matrix[i][j] for matrix in cells])
        return figures.shares(headline, averages, [part_note("RM-Bench", missing)])


def _matrix(judged: Judged) -> list[list[float]]:
    """The credits of an item: rows are styles of the right answer, columns those of the wrong one."""
    flat = [credit(judged, k, "A") for k in range(STYLES * STYLES)]
    return [flat[i * STYLES : (i + 1) * STYLES] for i in range(STYLES)]


def _level(matrix: list[list[float]], level: str) -> Part:
    cells = [
        matrix[i][j]
        for i in range(STYLES)
        for j in range(STYLES)
        if level == ("easy" if i > j else "normal" if i == j else "hard")
    ]
    return sum(cells), float(len(cells))


def _domain(group: str) -> str:
    return group.split("-")[0]


def _item(row: Row, place: Place) -> Item:
    group = row.get("domain") or place.path.name.removesuffix(".json").removesuffix("_filtered")
    if group not in SIZES:
        raise BadRow(f"the domain, in the row or the file's name, is none of {', '.join(SIZES)}", group)
    chosen, rejected = response_list(row, "chosen", STYLES), response_list(row, "rejected", STYLES)
    comparisons = [Comparison(i, STYLES + j, "A") for i in range(STYLES) for j in range(STYLES)]
    tags = {"domain": group, "subset": str(row.get("subset") or group)}
    number = row.get("id", place.number)
    return make_item(f"{group}/{number}", row.get("prompt"), [*chosen, *rejected], comparisons, tags=tags)
