"""`rmg estimate` against runs that were timed: predicted and measured seconds.

    python benchmarks/estimate.py RUN [RUN ...] [--out benchmarks/results/estimate.json]

Each RUN is the folder of a run of `rmg train`, engine local. Three checks, each from rates that the predicted steps had
no part in:

- halves: a run's first half of steps predicts the second;
- lengths: the half of its steps with the shorter prompts predicts that with the longer ones;
- runs: one run predicts another, where it timed what the other does.

Medians of steps are compared: a step may have had company. `ratio` is predicted over measured, and the range that of the
prediction's low and high end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from rm_gallery.core.estimate import Rates, Run, rates_from


@dataclass(frozen=True)
class Check:
    """A prediction: seconds of a step, medians. `where` is which part of the step; `low`, `high` its range."""

    kind: str
    by: str
    of: str
    where: str
    prompt: float
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured

    @property
    def inside(self) -> bool:
        return self.low <= self.measured <= self.high


RECORDED = {"generate": ("prefill", "decode"), "log_probs": ("log_probs",), "update": ("update", "optimizer")}


def predict(rates: Rates, run: Run, kind: str, by: str) -> list[Check]:
    """Each part that `run` recorded, and the whole step; nothing where a rate is not known."""
    names = [n for n in RECORDED if f"timing_s/{n}" in run.steps[0].record]
    parts = {f"timing_s/{n}": RECORDED[n] for n in names}
    parts["timing_s/step"] = tuple(itertools.chain(*RECORDED.values()))
    found = []
    for recorded, phases in parts.items():
        taken, told = [], []
        for step in run.steps:
            seconds = [rates.seconds(work, run.model.layers) for work in step.work if work.phase in phases]
            if None in seconds:
                return []
            told.append([sum(getattr(s, end) for s in seconds) for end in ("low", "middle", "high")])
            taken.append(step.record[recorded])
        low, middle, high = (statistics.median(column) for column in zip(*told, strict=True))
        prompt = statistics.mean(step.prompt for step in run.steps)
        where = recorded.removeprefix("timing_s/")
        found.append(Check(kind, by, name(run), where, prompt, statistics.median(taken), middle, low, high))
    return found


def name(run: Run) -> str:
    return f"{run.path.parent.name}/{run.path.name}"


def halves(run: Run) -> list[Check]:
    cut = len(run.steps) // 2
    by_length = sorted(run.steps, key=lambda step: step.prompt)
    return [
        *predict(rates_from(run.only(run.steps[:cut])), run.only(run.steps[cut:]), "halves", "first half"),
        *predict(rates_from(run.only(by_length[:cut])), run.only(by_length[cut:]), "lengths", "shorter half"),
    ]


def rounded(check: Check) -> dict[str, object]:
    values = {**asdict(check), "ratio": check.ratio}
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="also write the checks there, as JSON")
    arguments = parser.parse_args()
    runs = [Run.read(path) for path in arguments.runs]
    checks = [check for run in runs if len(run.steps) > 1 for check in halves(run)]
    for one, other in itertools.permutations(runs, 2):
        checks += predict(rates_from(one), other, "runs", name(one))
    print(
        f"{'check':<8} {'by':<26} {'of':<26} {'part':<10} {'prompt':>6} {'measured':>9} {'predicted':>9} ratio  range"
    )
    for c in checks:
        print(
            f"{c.kind:<8} {c.by:<26} {c.of:<26} {c.where:<10} {c.prompt:>6.0f} {c.measured:>8.1f}s {c.predicted:>8.1f}s "
            f"{c.ratio:>5.2f}  {c.low:.1f} to {c.high:.1f}{'' if c.inside else ' (measured outside)'}"
        )
    for kind in dict.fromkeys(c.kind for c in checks):
        ratios = [c.ratio for c in checks if c.kind == kind and c.where == "step"]
        wrong = [max(ratio, 1 / ratio) for ratio in ratios]
        print(
            f"{kind}: {len(ratios)} steps, off by a factor of {statistics.median(wrong):.2f} (median), {max(wrong):.2f} at most"
        )
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({**rounded(c), "inside": c.inside}) for c in checks]
        arguments.out.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
