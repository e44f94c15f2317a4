"""verl's dumps of samples, `verl/rollouts/<step>.jsonl` and `verl/validation/<step>.jsonl`, as figures of the judge.

A line holds `input` and `output` (texts), `gts` (the ground truth), `score`, `step` and `uid`; of held-out samples also
`reward` and what else the reward function said (`accuracy`, `parsed`, `abs_error`, …). Of training samples verl leaves
that out, so the task reads the verdict from the text again.
"""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate import Predictions, compute_metrics
from rm_gallery.core.evaluate.baselines import constant_reward
from rm_gallery.core.evaluate.metrics import OF_SEVERAL_ROWS, base_metric
from rm_gallery.core.evaluate.predictions import columns, data_source, task_kind
from rm_gallery.core.tasks import Task
from rm_gallery.core.templates.base import opening

logger = logging.getLogger("rm_gallery.train")
Rows = Sequence[Mapping[str, Any]]
Figures = dict[str, Any]

HELD_OUT = {"reward": "reward/mean", "accuracy": "accuracy", "abs_error": "mae", "parsed": "parse_rate"}
"""The reward function's name → ours, of the figures that are means over samples."""


def of_rollouts(rows: Rows, task: Task[Any] | None) -> Figures:
    """What the samples of one step add to verl's own figures: accuracy, mae, parse_rate, spread within groups."""
    real = _real(rows)
    found = _means(_scored(real, task))
    found.pop("reward/mean", None)  # the line has it
    groups: dict[str, list[float]] = {}
    for row in real:
        if "uid" in row and "score" in row:
            groups.setdefault(str(row["uid"]).rsplit("_", 2)[0], []).append(float(row["score"]))
    spreads = [statistics.stdev(scores) for scores in groups.values() if len(scores) > 1]
    if spreads:  # as TRL has them: the mean of the groups' standard deviations
        found["reward/std"] = statistics.fmean(spreads)
        found["reward/zero_std_groups"] = sum(spread < 1e-8 for spread in spreads) / len(spreads)
    return found


def of_validation(rows: Rows, task: Task[Any] | None) -> Figures:
    """The figures of `rmg eval` on held-out samples; without a task, those that are means of what the rows carry."""
    if task is None or not rows:
        return _means(rows)
    try:
        task_kind(task)
        truth = [task.check_truth(task.ground_truth(row.get("gts"), {})) for row in rows]
    except (ConfigError, DataError):  # a truth that is not in the dump
        return _means(_scored(rows, task))
    sources = [data_source(row) for row in rows]
    results = [
        task.score_text(str(row.get("output")), true, source)
        for row, true, source in zip(rows, truth, sources, strict=True)
    ]
    known = {
        "truth": truth,
        "predicted": [predicted for predicted, _ in results],
        "reward": [reward for _, reward in results],
        "probabilities": [None] * len(rows),
        "mass": [None] * len(rows),
        "data_source": sources,
    }
    table = {name: known.get(name, [""] * len(rows)) for name in (*columns(), "data_source")}
    figures = compute_metrics(Predictions.of(task, table))
    for name in list(figures):
        # which rows share a prompt, or are one pair in two orders, is not in the dump
        if base_metric(name) in OF_SEVERAL_ROWS:
            del figures[name]
    figures["reward/mean"] = figures.pop("reward")
    return {**figures, "reward/best_constant": constant_reward(task, truth, sources)}


def belongs(rows: Rows, reward: float | None) -> bool:
    """Whether these can be the samples of a line with this mean reward: a resumed run overwrites an earlier try's."""
    real = _real(rows)
    scores = [float(row["score"]) for row in real if isinstance(row.get("score"), (int, float))]
    if reward is None or len(scores) < len(real):
        return True
    # verl adds up in float32
    return bool(scores) and math.isclose(statistics.fmean(scores), reward, rel_tol=1e-4, abs_tol=1e-4)


def _real(rows: Rows) -> Rows:
    """Without the samples that only fill up a batch, named so by verl."""
    return [row for row in rows if not str(row.get("uid", "")).startswith("pad")]


def _scored(rows: Rows, task: Task[Any] | None) -> Rows:
    """The rows with what the reward says of them, where it is not in them already."""
    if task is None or all("parsed" in row for row in rows):
        return rows
    try:
        return [{**task.compute_score("", str(row.get("output")), row.get("gts")), **row} for row in rows]
    except DataError:
        return rows


def _means(rows: Rows) -> Figures:
    names = {"score": "reward/mean", **{key: name for key, name in HELD_OUT.items() if key != "reward"}}
    return {
        name: statistics.fmean(row[key] for row in rows)
        for key, name in names.items()
        if rows and all(isinstance(row.get(key), (int, float)) for row in rows)
    }


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """The samples of a dump, without their prompts, which are long: only what they begin of the answer is needed."""
    rows: list[Mapping[str, Any]] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                row = json.loads(text)
            except ValueError:
                logger.warning("%s: half a line at its end is left out", path)
                break
            answer = opening(str(row.pop("input", ""))) + str(row.get("output"))
            rows.append({**row, "output": answer})
    return rows


def ends_with_a_line(path: Path) -> bool:
    """Whether the file is not empty and its last line is whole."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return False
        file.seek(-1, 2)
        return file.read(1) == b"\n"
