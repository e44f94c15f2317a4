"""PandaLM (WeOpenML): two responses and three annotators, who may call them alike."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rm_gallery.core.data.converters import text
from rm_gallery.core.data.samples import Preferred
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.aggregate import (
    Figures,
    equal_weights,
    gaps,
    invalid_verdicts,
    part_note,
    verdicts,
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
    located,
    make_item,
    one_of,
    response,
)

SIZE = 999
VOTES: dict[int, Preferred] = {0: "tie", 1: "A", 2: "B"}


@register_benchmark
class PandaLM(Benchmark):
    """Three-way accuracy against the annotators' majority, and precision, recall and F1 of the three verdicts.

    Every order that was asked counts as a judgment of its own; the publisher asks in the order of the file.
    """

    name: ClassVar[str] = "pandalm"
    source: ClassVar[str] = (
        "github.com/WeOpenML/PandaLM: data/testset-v1.json (format), data/compute_metrics.py (majority, macro averages)"
    )
    verified: ClassVar[bool] = False

    def load(self, path: Path) -> list[Item]:
        file = path / "testset-v1.json" if path.is_dir() else path
        items = []
        for number, row in enumerate(_rows(file), 1):
            with located(Place(file, number)):
                items.append(_item(row))
        return checked_items(items, file)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        strict = _shares(items, judged, None)
        if not invalid_verdicts(judged):
            return strict
        rule = "the publisher counts one as a verdict for a tie"
        return with_published_rule(strict, _shares(items, judged, "tie"), rule)


def _shares(items: Sequence[Item], judged: Sequence[Judged], missing: Preferred | None) -> Shares:
    figures = Figures(items, judged)
    truths = [item.comparisons[0].truth for item in items]
    given = [[verdict or missing for verdict in verdicts(found, 0)] for found in judged]
    part = gaps(["test pairs"] * len(items), {"test pairs": SIZE})
    headline = whole_or_part("accuracy", part)
    figures.add(headline, [g.count(t) / len(g) for g, t in zip(given, truths, strict=True)])
    names: dict[Preferred, str] = {
        "A": whole_or_part("first", part),
        "B": whole_or_part("second", part),
        "tie": whole_or_part("tie", part),
    }
    for label, name in names.items():
        right = [g.count(t) * (t == label) for g, t in zip(given, truths, strict=True)]
        labelled = [len(g) * (t == label) for g, t in zip(given, truths, strict=True)]
        said = [g.count(label) for g in given]
        both = [s + n for s, n in zip(said, labelled, strict=True)]
        for what, times, of in (("precision", 1, said), ("recall", 1, labelled), ("f1", 2, both)):
            parts = [(float(times * r), float(n)) for r, n in zip(right, of, strict=True)]
            # as in the publisher's script: of a verdict that never occurs the figure is 0
            figures.add(f"{what}_{name}", parts if any(of) else [0.0] * len(of))
    averages = {
        whole_or_part(f"macro_{what}", part): equal_weights(f"{what}_{name}" for name in names.values())
        for what in ("precision", "recall", "f1")
    }
    return figures.shares(headline, averages, [part_note("PandaLM's test set", part)])


def _rows(file: Path) -> list[dict[str, Any]]:
    # the publisher's file writes NaN for an instruction without input, which is no JSON but which this module reads
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} is not an array of objects")
    return rows


def _item(row: Row) -> Item:
    given = row.get("input")
    query = text(row, "instruction") + (f"\n\n{given}" if isinstance(given, str) and given.strip() else "")
    # of three different votes the first counts, as in the publisher's script
    votes = Counter(one_of(row, f"annotator{i}", VOTES) for i in (1, 2, 3))
    truth: Preferred = votes.most_common(1)[0][0]
    answers = [response(row, "response1"), response(row, "response2")]
    tags = {"application": str(row.get("motivation_app") or ""), "models": str(row.get("cmp_key") or "")}
    return make_item(row.get("idx"), query, answers, [Comparison(0, 1, truth)], tags=tags)
