"""A `Snapshot` of a run, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rm_gallery.core.train.watch import Checkpoint, Snapshot, sparkline

WIDEST = 110
"""Beyond this, figures stand too far from their names."""
_LABEL = 17
_LOG_LINES = 8

_HIGHER, _LOWER, _NEITHER = 1, -1, 0
# metric → (name, which way is better); the first ones stay where the terminal is low
_TABLE = {
    "reward/mean": ("reward", _HIGHER),
    "reward/best_constant": ("best constant", _NEITHER),
    "accuracy": ("accuracy", _HIGHER),
    "accuracy_untied": ("untied accuracy", _HIGHER),
    "parse_rate": ("parse rate", _HIGHER),
    "mae": ("mean abs. error", _LOWER),
    "loss": ("loss", _LOWER),
    "token_accuracy": ("token accuracy", _HIGHER),
    "reward/gap": ("reward gap", _NEITHER),
    "kl_loss": ("KL to reference", _NEITHER),
    "kappa": ("kappa", _HIGHER),
    "entropy": ("entropy", _NEITHER),
    "grad_norm": ("gradient norm", _NEITHER),
    "response_length/mean": ("response tokens", _NEITHER),
    "response_length/clip_ratio": ("cut off", _LOWER),
    "rollout_probs_diff/mean": ("vLLM off by", _LOWER),
    "tokens_per_second": ("tokens a second", _NEITHER),
    "memory/peak_gib": ("peak memory, GiB", _NEITHER),
}
_CURVES = (
    ("reward/mean", "train"),
    ("reward/mean", "val"),
    ("accuracy", "train"),
    ("accuracy", "val"),
    ("accuracy_untied", "train"),
    ("accuracy_untied", "val"),
    ("loss", "train"),
    ("kl_loss", "train"),
    ("parse_rate", "train"),
    ("parse_rate", "val"),
)
_STATES = {"starting": "cyan", "running": "cyan", "stalled": "yellow", "failed": "red", "finished": "green"}


def view(snapshot: Snapshot, width: int, height: int | None = None) -> RenderableType:
    """Header, progress, figures, curves, checkpoints, and the log where something is wrong.

    Args:
        height: lines to fit in; figures and curves of less weight are left out. None: all of them.
    """
    width = min(width, WIDEST)
    top = [*_header(snapshot, width), Text(), *_progress(snapshot, width)]
    checkpoints = [(name, found) for name in ("latest", "best") if (found := getattr(snapshot, name))]
    log = _log(snapshot, width)
    metrics = [name for name in _TABLE if _is_known(snapshot, name)]
    curves = [curve for curve in _CURVES if _is_drawn(snapshot, *curve)]
    if height is not None:
        # a blank line before each part, the table's two lines of header, and one below for the cursor
        room = height - len(top) - len(checkpoints) - len(log) - 6
        curves = curves[: max(0, room - min(len(metrics), 5))]
        metrics = metrics[: max(3, room - len(curves))]
    parts: list[RenderableType] = [*top]
    if metrics:
        parts += [Text(), _table(snapshot, metrics, width)]
    if curves:
        parts += [Text(), _curves(snapshot, curves, width)]
    if checkpoints:
        parts += [Text(), _checkpoints(snapshot, checkpoints)]
    parts += log
    return Group(*parts)


def duration(seconds: float) -> str:
    """`8.4 s`, `95 s`, `12 min`, `3 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def figure(value: Any) -> str:
    """A number with as many digits as say something; `-` for none."""
    if not isinstance(value, (int, float)):
        return "-"
    if value == 0 or 0.001 <= abs(value) < 10:
        return f"{value:.3f}"
    if abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _header(snapshot: Snapshot, width: int) -> list[RenderableType]:
    config = snapshot.config
    title = Text(f"{config.task} · {config.method} · {config.engine} engine", style="bold")
    places = (f"model  {config.model.path}", f"run    {snapshot.path}")
    return [_cut(title, width), *(_cut(Text(place, style="dim"), width) for place in places)]


def _progress(snapshot: Snapshot, width: int) -> list[RenderableType]:
    step, total, state = snapshot.step, snapshot.total, snapshot.state
    about = "" if snapshot.exact or state == "finished" else "about "
    name = f"step {step}" if total is None else f"step {step} of {about}{total}"
    lines: list[RenderableType] = []
    if total is None:
        lines.append(Text(name))
    else:
        share = f"{min(1.0, step / total):>4.0%}"
        bar = ProgressBar(total, step, width=max(10, width - len(name) - len(share) - 2))
        grid = Table.grid(padding=(0, 1))
        grid.add_row(name, bar, share)
        lines.append(grid)
    silence = f"nothing new for {duration(snapshot.quiet)}"
    said = {
        "starting": "starting, no step yet",
        "stalled": f"stalled: {silence}" if total is not None else f"{silence}: finished, or stalled",
        "failed": f"an error in the log, and {silence}",
    }.get(state, state)
    facts = [Text(said, style=f"bold {_STATES[state]}")]
    if snapshot.seconds_per_step is not None:
        facts.append(Text(f"{duration(snapshot.seconds_per_step)} a step"))
        facts.append(Text(f"{duration(snapshot.seconds)} {'in all' if state == 'finished' else 'so far'}"))
    left = snapshot.seconds_left
    if left is not None and state == "running":
        facts.append(Text(f"about {duration(left)} left"))
    lines.append(Text(" · ").join(facts))
    return lines


def _table(snapshot: Snapshot, metrics: list[str], width: int) -> Table:
    shown = 3 if width >= 68 else 2  # what stood there before goes first
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", min_width=_LABEL, no_wrap=True)
    sides = []
    for title, split in (("training", "train"), ("held out", "val")):
        records = snapshot.records(split)[-2:]
        if not records:
            continue
        sides.append(records)
        at = [f"step {record['step']}" for record in reversed(records)]
        # an empty column keeps the sides apart
        table.add_column("", min_width=2)
        table.add_column(Text(f"{title}\n{at[0]}"), justify="right", min_width=10, no_wrap=True)
        table.add_column("")
        if shown == 3:
            before = at[1] if len(at) > 1 else ""
            table.add_column(Text(f"\n{before}"), justify="right", min_width=8, no_wrap=True)
    for metric in metrics:
        name, better = _TABLE[metric]
        cells: list[RenderableType] = [Text(name)]
        for records in sides:
            cells += ["", *_change(metric, records, better)[:shown]]
        table.add_row(*cells)
    return table


def _change(metric: str, records: list[Mapping[str, Any]], better: int) -> list[Text]:
    """The newest value, an arrow, and the value before."""
    if all(metric not in record for record in records):
        return [Text(), Text(), Text()]
    now = records[-1].get(metric)
    before = records[-2].get(metric) if len(records) > 1 else None
    arrow = Text()
    if isinstance(now, (int, float)) and isinstance(before, (int, float)):
        way = (figure(now) != figure(before)) * (1 if now > before else -1)
        style = {0: "dim", 1: "green", -1: "red"}[way * better]
        arrow = Text({0: "=", 1: "↑", -1: "↓"}[way], style=style)
    return [
        Text(figure(now), style="bold"),
        arrow,
        Text(figure(before) if len(records) > 1 else "", style="dim"),
    ]


def _curves(snapshot: Snapshot, curves: list[tuple[str, str]], width: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for least in (_LABEL, None, None, None):
        grid.add_column(min_width=least, no_wrap=True)
    at = [int(record["step"]) for record in snapshot.run.records]
    named = ""
    for metric, split in curves:
        steps, values = snapshot.run.series(metric, split)
        name = _TABLE[metric][0]
        curve = sparkline(steps, values, max(8, width - _LABEL - 30), (min(at), max(at)))
        low, high = figure(curve.low), figure(curve.high)
        grid.add_row(
            Text(name if name != named else ""),
            Text("training" if split == "train" else "held out", style="dim"),
            Text(curve.blocks, style="blue" if split == "train" else "dark_orange"),
            Text(low if low == high else f"{low} .. {high}", style="dim"),
        )
        named = name
    return grid


def _checkpoints(snapshot: Snapshot, checkpoints: list[tuple[str, Checkpoint]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for least in (_LABEL, None):
        grid.add_column(min_width=least, no_wrap=True)
    # a scalar model earns no reward
    metric = "accuracy_untied" if snapshot.config.method in ("bradley_terry", "regression") else "reward/mean"
    held_out = dict(zip(*snapshot.run.series(metric, "val"), strict=True))
    for name, found in checkpoints:
        text = Text(f"step {found.step}")
        if found.step in held_out:
            text.append(f" · held-out {_TABLE[metric][0]} {figure(held_out[found.step])}")
        grid.add_row(Text(f"{name} checkpoint"), text.append(f" · {found.name}", style="dim"))
    return grid


def _log(snapshot: Snapshot, width: int) -> list[RenderableType]:
    if snapshot.state not in ("stalled", "failed") or not snapshot.log:
        return []
    lines: list[RenderableType] = [Text(), Text("the end of logs/training.log", style="bold")]
    return lines + [_cut(Text(line, style="dim"), width) for line in snapshot.log[-_LOG_LINES:]]


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _is_known(snapshot: Snapshot, metric: str) -> bool:
    if metric == "loss" and snapshot.config.method == "grpo":
        return False  # the loss of GRPO says nothing by itself
    return any(metric in record for split in ("train", "val") for record in snapshot.records(split)[-2:])


def _is_drawn(snapshot: Snapshot, metric: str, split: str) -> bool:
    return _is_known(snapshot, metric) and len(snapshot.run.series(metric, split)[1]) > 1
