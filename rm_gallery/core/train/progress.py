"""`StepProgress`: what a run of either engine shows in the terminal while it trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SHOWN = (
    "loss",
    "reward/mean",
    "reward/best_constant",
    "accuracy",
    "accuracy_untied",
    "mae",
    "parse_rate",
    "kl_loss",
)


def figures(record: Mapping[str, Any]) -> str:
    """The main figures of a line of `metrics.jsonl`, in one line."""
    known = (name for name in _SHOWN if record.get(name) is not None)
    return "  ".join(
        f"{name.removesuffix('/mean').removeprefix('reward/')} {record[name]:.3f}" for name in known
    )


def beside_a_constant(records: Iterable[Mapping[str, Any]]) -> str | None:
    """A sentence on a run's last held-out reward beside what one answer to all rows earns; None without the figures."""
    *_, last = [{}, *(record for record in records if record["split"] == "val")]
    reward, constant = last.get("reward/mean"), last.get("reward/best_constant")
    if reward is None or constant is None:
        return None
    said = (
        f"Held out, its mean reward is {reward:.3f}; the same answer to every row would earn {constant:.3f}"
    )
    if reward <= constant:
        return f"{said}, so nothing shows yet that it reads what it judges."
    return f"{said} at most. rmg eval says whether the difference can be chance."


class StepProgress:
    """A bar with the newest figures; where a bar cannot be drawn, some ten lines instead. Held-out figures stay."""

    def __init__(self, describe: str) -> None:
        self.describe = describe
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: Any = None
        self._steps = 0

    def start(self, steps: int, done: int = 0) -> None:
        """Begin at step `done` of `steps`."""
        self._steps = steps
        self._bar = self._progress.add_task(self.describe, total=steps, completed=done, figures="")
        self._progress.start()

    def show(self, record: Mapping[str, Any]) -> None:
        """Show one line of `metrics.jsonl`."""
        step = int(record["step"])
        if record["split"] == "val":
            self._line(step, f"held out  {figures(record)}")
            return
        if self._bar is not None:
            self._progress.update(self._bar, completed=step, figures=figures(record))
        if not self._progress.console.is_terminal and step % max(1, self._steps // 10) == 0:
            self._line(step, figures(record))

    def close(self) -> None:
        """Stop drawing; safe to call twice."""
        self._progress.stop()

    def _line(self, step: int, text: str) -> None:
        self._progress.console.print(
            f"  step {step:>4}/{self._steps}  {text}", highlight=False, soft_wrap=True
        )
