"""RMB (Zhou-Zoey): helpfulness and harmlessness, each by pairs and by the best of several responses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rm_gallery.core.data.converters import BadRow, text
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.aggregate import (
    Figures,
    credit,
    equal_weights,
    part_note,
    scores,
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
from rm_gallery.core.evaluate.benchmarks.reading import (
    Place,
    Row,
    checked_items,
    make_item,
    read_items,
    response,
)

HELPFULNESS = {
    "Brainstorming": ("Idea Development", "Problem Solving"),
    "Chat": ("Casual Conversation", "Discussion", "Supportive Conversation"),
    "Classification": ("Content Categorization", "Quality and Compliance Assessment"),
    "Closed QA": ("ContextBased", "OptionBased"),
    "Code": (
        "Data Management",
        "Development and Implementation",
        "Documentation",
        "Quality and Optimization",
    ),
    "Generation": ("Creative Writing", "Professional Content Generation"),
    "Open QA": (
        "Factual",
        "General Explanation",
        "Hypothetical Scenarios",
        "Interpretative Analysis",
        "Personal Opinion and Advice",
        "Technical and Practical Support",
    ),
    "Reasoning": (
        "Analytical Reasoning",
        "Critical Thinking",
        "Human Decision Making",
        "Logical Deduction",
        "Pattern Recognition",
    ),
    "Rewrite": (
        "Paraphrasing",
        "PostQuality Assessment Rewriting",
        "Textual ExpansionReduction",
        "Tone Adjustment",
    ),
    "Role Playing": ("General Character", "Specific Character"),
    "Summarization": ("Specialized Summaries", "Standard Summaries"),
    "Translation": (
        "GeneralExcerpt Language Translation",
        "Literary and Cultural Translation",
        "Technical and Scientific Translation",
    ),
}
# whether the pairs have an S11, as the best-of-n set has, is not known here: it is not asked for
HARMLESSNESS = (*(f"S{i}" for i in range(1, 11)), "multi")
SCENARIOS = {
    "helpfulness": {f"{group}/{name}" for group, names in HELPFULNESS.items() for name in names},
    "harmlessness": set(HARMLESSNESS),
}
FIGURES = ("helpfulness_bon", "helpfulness_pairwise", "harmlessness_bon", "harmlessness_pairwise")
_PAIRS = (
    "Of the best of n, a judge that compares two responses is asked for the best one against each of the others, and "
    "is right where it wins all by both orders together."
)


@register_benchmark
class RMB(Benchmark):
    """Accuracy on pairs, and the share of prompts whose best response beats all others; overall the mean of four."""

    name: ClassVar[str] = "rmb"
    source: ClassVar[str] = (
        "github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark: RMB_dataset (format, scenarios), eval/scripts/my_run_rm.py "
        "(accuracy of pairs); best of n and the mean of four as in arXiv:2410.09893"
    )
    verified: ClassVar[bool] = False

    def load(self, path: Path) -> list[Item]:
        """Of a file, or of all `.json` below a folder such as `RMB_dataset`."""
        if not path.is_dir():
            return read_items(path, _item)
        files = sorted(path.rglob("*.json"))
        if not files:
            raise DataError(
                f"{path} holds no .json; expected RMB_dataset, with Pairwise_set and BoN_set in it"
            )
        return checked_items([item for file in files for item in read_items(file, _item)], path)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        figures = Figures(items, judged)
        right = [_right(item, found) for item, found in zip(items, judged, strict=True)]
        missing = [(name, lacking) for name in FIGURES if (lacking := _lacking(items, name))]
        names = {name: name if name not in dict(missing) else f"{name}_partial" for name in FIGURES}
        present = figures.add_by_tag("figure", right, names)
        part = ", ".join(f"{name} lacks {lacking}" for name, lacking in missing) or None
        headline = whole_or_part("overall", part)
        pairs = None if scores(judged) else _PAIRS
        return figures.shares(headline, {headline: equal_weights(present)}, [part_note("RMB", part), pairs])


def _lacking(items: Sequence[Item], figure: str) -> str | None:
    """What of the scenarios of a figure has no item."""
    wanted = SCENARIOS[figure.split("_")[0]]
    absent = sorted(wanted - {item.tags["scenario"] for item in items if item.tags["figure"] == figure})
    if not absent:
        return None
    return "all scenarios" if len(absent) == len(wanted) else f"{len(absent)} scenarios ({absent[0]}, …)"


def _right(item: Item, judged: Judged) -> float:
    if item.tags["figure"].endswith("pairwise"):
        return credit(judged, 0, "A")
    return float(all(outcome.preferred == "A" for outcome in judged.outcomes))


def _item(row: Row, _: Place) -> Item:
    parts = text(row, "category_path").split("/")
    goal = next((part for part in parts if part.lower() in SCENARIOS), None)
    if goal is None:
        raise BadRow("category_path names neither Helpfulness nor Harmlessness", row["category_path"])
    scenario = "/".join(parts[parts.index(goal) + 1 :])
    of_many = "bon_best" in row
    tags = {"figure": f"{goal.lower()}_{'bon' if of_many else 'pairwise'}", "scenario": scenario}
    if of_many:
        losers = row.get("loser_list")
        if not isinstance(losers, list) or not losers:
            raise BadRow("loser_list is not a list of responses", losers)
        best, others = _answer(row, "bon_best"), [_text(loser, "loser_list") for loser in losers]
    else:
        best, others = _answer(row, "chosen"), [_answer(row, "reject")]
    name = f"bon/{row.get('bon_uid')}" if of_many else f"pair/{row.get('pair_uid')}"
    comparisons = [Comparison(0, i, "A") for i in range(1, 1 + len(others))]
    return make_item(name, row.get("conversation_input"), [best, *others], comparisons, tags=tags)


def _answer(row: Row, name: str) -> str:
    return _text(row.get(name), name)


def _text(value: object, name: str) -> str:
    if not isinstance(value, dict):
        raise BadRow(f"{name} holds no `answer`", value)
    return response(value, "answer")
