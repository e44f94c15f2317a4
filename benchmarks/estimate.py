"""`rmg estimate` against runs that were timed: predicted and measured seconds.

    python benchmarks/estimate.py RUN [RUN ...] [--out benchmarks/results/estimate.json]

Each RUN is the folder of a run of `rmg train`, engine local. Checks, each from rates that the predicted steps had
no part in:

- halves: a run's first half of steps predicts the second;
- lengths: the half of its steps with the shorter prompts predicts that with the longer ones;
- runs: one run predicts another, where it timed what the other does;
- padded: the same, where one of the two pads its texts and the other does not;
- held out: the steps of a run predict how long judging its held-out rows takes, where those files are still there.

With `--judged RUN=SECONDS … --heldout FILE`, also:

- judging: a run's own rates predict how long its judge took over the pairs of FILE (as `benchmarks/methods.py` writes it
  and its results say): each response alone by a scalar model, both orders of a pair by one that writes, in mode
  `expected`.

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

from rm_gallery.core.estimate import (
    Lengths,
    Rates,
    Run,
    estimate_training,
    judge_modes,
    rates_from,
    read_lengths,
)
from rm_gallery.core.estimate.lengths import SCALAR
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.scalar import encode
from rm_gallery.core.models.weights import load_tokenizer
from rm_gallery.core.tasks import PairwiseTask
from rm_gallery.core.train.log import read_log


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


def held_out(run: Run) -> list[Check]:
    """Nothing where there are no such rows, or where the run did not time what judging them takes (writing, of sft)."""
    records = read_log(run.path / "metrics.jsonl")
    taken = [record["seconds"] for record in records if record["split"] == "val" and record.get("seconds")]
    files = (run.config.data.train, run.config.data.val)
    if not taken or not all(file and file.is_file() for file in files):
        return []
    rates, lengths = rates_from(run), read_lengths(run.config)
    if run.config.method not in SCALAR and rates.decode is None:
        return []
    told = estimate_training(run.config, run.model, lengths, rates).evaluation
    measured = statistics.median(taken)
    by = name(run)
    return [
        Check("held out", by, by, "judging", lengths.mean, measured, told.middle, told.low, told.high),
    ]


def judging(run: Run, seconds: float, file: Path) -> Check:
    with file.open(encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    tokenizer = load_tokenizer(run.path / "actor_latest", chat=False)
    tree, texts = None, []
    if run.config.method in SCALAR:
        for pair in pairs:
            for response in pair["responses"]:
                turns = [*pair["messages"], {"role": "assistant", "content": response}]
                texts.append(len(encode(tokenizer, turns)["input_ids"]))
        texts = [
            length for length in texts if length <= tokenizer.model_max_length
        ]  # the others are not judged
    else:
        judge, task = LocalJudge(None, tokenizer), PairwiseTask()
        tree = len(judge.verdict_tree(task).tokens)
        for pair in pairs:
            for order in (pair["responses"], pair["responses"][::-1]):
                row = {"input": pair["messages"], "output": [{"content": text} for text in order]}
                texts.append(
                    len(tokenizer(judge.render(task.messages(row)), add_special_tokens=False)["input_ids"])
                )
    lengths = Lengths(1, 0, tuple(texts), 10, tree, max(texts))
    told = judge_modes(run.config, run.model, lengths, rates_from(run))[0].seconds.times(len(texts) / 1e6)
    return Check(
        "judging", name(run), name(run), "judging", lengths.mean, seconds, told.middle, told.low, told.high
    )


def rounded(check: Check) -> dict[str, object]:
    values = {**asdict(check), "ratio": check.ratio}
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--judged", nargs="*", default=[], metavar="RUN=SECONDS", help="what judging took")
    parser.add_argument("--heldout", type=Path, help="the pairs that were judged, as JSON Lines")
    parser.add_argument("--out", type=Path, help="also write the checks there, as JSON")
    arguments = parser.parse_args()
    runs = [Run.read(path) for path in arguments.runs]
    checks = [check for run in runs if len(run.steps) > 1 for check in halves(run)]
    for one, other in itertools.permutations(runs, 2):
        kind = "runs" if one.pads == other.pads else "padded"
        checks += predict(rates_from(one), other, kind, name(one))
    checks += itertools.chain.from_iterable(held_out(run) for run in runs)
    for judged in arguments.judged:
        folder, _, seconds = judged.rpartition("=")
        checks.append(judging(Run.read(Path(folder)), float(seconds), arguments.heldout))
    print(
        f"{'check':<8} {'by':<26} {'of':<26} {'part':<10} {'prompt':>6} {'measured':>9} {'predicted':>9} ratio  range"
    )
    for c in checks:
        print(
            f"{c.kind:<8} {c.by:<26} {c.of:<26} {c.where:<10} {c.prompt:>6.0f} {c.measured:>8.1f}s {c.predicted:>8.1f}s "
            f"{c.ratio:>5.2f}  {c.low:.1f} to {c.high:.1f}{'' if c.inside else ' (measured outside)'}"
        )
    for kind in dict.fromkeys(c.kind for c in checks):
        ratios = [c.ratio for c in checks if c.kind == kind and c.where in ("step", "judging")]
        wrong = [max(ratio, 1 / ratio) for ratio in ratios]
        print(
            f"{kind}: {len(ratios)} predictions, off by a factor of {statistics.median(wrong):.2f} (median), {max(wrong):.2f} at most"
        )
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({**rounded(c), "inside": c.inside}) for c in checks]
        arguments.out.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
