"""The table of benchmarks/methods.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def interval(estimate: dict[str, Any]) -> str:
    """`0.612 (0.541 to 0.683)`; what is undefined says so."""
    if estimate["value"] is None:
        return "undefined"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def difference(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None or estimate["low"] is None:
        return "undefined"
    return f"{estimate['value']:+.3f} ({estimate['low']:+.3f} to {estimate['high']:+.3f})"


def to_table(results: dict[str, Any], methods: Mapping[str, Any]) -> str:
    """Markdown: the trivial predictors first, then each method that was measured."""
    lines = [
        "| method | starts from | right, all pairs | right, short pairs | against the longer one | no verdict | training, s | GiB | judging, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    measured = results["methods"]
    names = [name for name in methods if name in measured]
    if names:
        shown = {"random": "chance: a coin", "first": "always the first", "longer": "always the longer"}
        for name, label in shown.items():
            figures = measured[names[0]]["baselines"][name]["figures"]
            cells = [label, "", interval(figures["accuracy"]), interval(figures["short"]), "", "", "", "", ""]
            lines.append("| " + " | ".join(cells) + " |")
    for name in names:
        found = measured[name]
        figures, training = found["figures"], found["train"]
        cells = [
            found["about"],
            results["models"][methods[found["start"]].start if found["start"] in methods else found["start"]][
                "name"
            ],
            interval(figures["accuracy"]),
            interval(figures["short"]),
            difference(found["baselines"]["longer"]["difference"]),
            "undefined" if figures["invalid"]["value"] is None else f"{figures['invalid']['value']:.1%}",
            f"{training['seconds']:.0f}",
            f"{training['peak_gib']:.1f}",
            f"{found['evaluate']['seconds']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(" ".join(line.split()) for line in lines)
