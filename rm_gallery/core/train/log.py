"""A run's `metrics.jsonl`, read: by the report, by `rmg watch`, and by a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import DataError


@dataclass(frozen=True)
class TrainingRun:
    """A run's log: one mapping a line of metrics.jsonl (`step`, `split`, metrics), and its configuration."""

    name: str
    records: tuple[Mapping[str, Any], ...]
    config: str = ""

    def series(self, metric: str, split: str) -> tuple[list[int], list[float]]:
        """(steps, values) of a metric where it was logged for `train` or `val`."""
        points = [
            (int(record["step"]), float(record[metric]))
            for record in self.records
            if record.get("split", "train") == split and isinstance(record.get(metric), (int, float))
        ]
        points.sort()
        return [step for step, _ in points], [value for _, value in points]


def read_log(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The records of a metrics.jsonl. A last line without its end is ignored: the run was killed or goes on.

    Raises:
        DataError: a line is not a JSON object with a `step`; names it.
    """
    records = []
    lines = path.read_text("utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            int(record["step"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise DataError(f"{path}, line {number} is not a JSON object with a step") from None
        records.append(record)
    return tuple(records)
