"""An estimate as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rm_gallery.core.estimate.lengths import SCALAR, Lengths
from rm_gallery.core.estimate.machine import Range
from rm_gallery.core.estimate.memory import GIB
from rm_gallery.core.estimate.plan import Estimate, Judging, cost
from rm_gallery.core.estimate.rates import Rates
from rm_gallery.core.estimate.work import samples
from rm_gallery.core.train.config import TrainConfig

_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 0.001))


def training_view(
    config: TrainConfig,
    lengths: Lengths,
    estimate: Estimate,
    rates: Rates,
    *,
    price: float | None,
    room: float | None,
) -> str:
    """What a run takes. `room` is the memory of one device, where it is known."""
    written = "answers" if config.method == "grpo" else "reasonings"
    n = f" x {samples(config)} {written}" if samples(config) else ""
    unit = (
        "pairs"
        if config.method == "bradley_terry"
        else "rows"
        if config.method == "regression"
        else "prompts"
    )
    lines = [
        f"{config.method} of {config.task}, {estimate.model.name}: {_count(estimate.model.parameters)} weights",
        f"{estimate.steps:,} steps of {config.train.batch_size} {unit}{n}, from {lengths.rows:,} {unit}",
        _of_lengths(lengths, scalar=config.method in SCALAR),
        "",
    ]
    share = estimate.step.middle
    kinds: set[str] = {phase.work.kind for phase in estimate.phases}
    kinds |= {"forward"} if estimate.judging else set()
    kinds |= {"decode"} if any(each.mode == "greedy" for each in estimate.judging) else set()
    rows = [("phase", "TFLOP a step", "seconds a step", "range", "share")]
    for phase in estimate.phases:
        seconds = phase.seconds or Range(0, 0, 0)
        if phase.work.kind == "optimizer" and rates.optimizer is None:
            continue  # in the update, which was timed with it
        rows.append(
            (
                phase.work.phase,
                _three(phase.work.operations * estimate.gpus / 1e12) if phase.work.operations else "-",
                _three(seconds.middle),
                _range(seconds, _three),
                f"{seconds.middle / share:.0%}" if share else "-",
            )
        )
    operations = sum(phase.work.operations for phase in estimate.phases) * estimate.gpus / 1e12
    rows.append(("a step", _three(operations), _three(share), _range(estimate.step, _three), "100%"))
    lines += [*_table(rows), ""]
    facts = []
    if estimate.evaluations:
        facts.append(
            (
                "held out",
                f"{estimate.evaluations} x {lengths.held_out:,} rows, {_with_range(estimate.evaluation, duration)} each",
            )
        )
    facts.append(
        ("the run", _with_range(estimate.seconds, duration) + _priced(estimate.seconds, estimate.gpus, price))
    )
    facts.append(("memory", _memory(estimate, room)))
    facts += _judged(estimate.judging, estimate.gpus, price)
    lines += _pairs(facts)
    return "\n".join([*lines, "", *_footnotes(lengths, rates, kinds, estimate.gpus, config.engine)])


def judging_view(
    name: str,
    parameters: int,
    lengths: Lengths,
    judging: Sequence[Judging],
    rates: Rates,
    *,
    gpus: int,
    price: float | None,
) -> str:
    """What a million judgments take."""
    lines = [f"judging by {name}: {_count(parameters)} weights", _of_lengths(lengths, scalar=False), ""]
    lines += _pairs(_judged(judging, gpus, price))
    return "\n".join([*lines, "", *_footnotes(lengths, rates, {"forward", "decode"}, gpus, "local")])


def sizes_view(estimates: Sequence[Estimate], *, price: float | None) -> str:
    """The same run with models of other sizes."""
    modes = [each.mode for each in estimates[0].judging]
    head = ["model", "weights", "a step", "the run", "memory a device", *(f"1M {mode}" for mode in modes)]
    if price is not None:
        head += ["cost of the run", *(f"of 1M {mode}" for mode in modes)]
    rows = [tuple(head)]
    for each in estimates:
        cells = [
            each.model.name,
            _count(each.model.parameters),
            _range(each.step, duration),
            _range(each.seconds, duration),
            _range(each.memory.peak, _gib),
            *("-" if j.seconds is None else _range(j.seconds, duration) for j in each.judging),
        ]
        if price is not None:
            cells.append(_range(cost(each.seconds, each.gpus, price), _money))
            cells += [
                "-" if j.seconds is None else _range(cost(j.seconds, each.gpus, price), _money)
                for j in each.judging
            ]
        rows.append(tuple(cells))
    return "\n".join(_table(rows))


def fits(estimate: Estimate, room: float | None) -> bool | None:
    """Whether it fits into `room`; None where that is not known, or where only the low end does."""
    if room is None or estimate.memory.peak.low <= room < estimate.memory.peak.high:
        return None
    return estimate.memory.peak.high <= room


def duration(seconds: float) -> str:
    """
    >>> duration(5400)
    '1.5 h'
    """
    for unit, size in _UNITS:
        if seconds >= size * (1 if unit == "s" else 1.5) or unit == "ms":
            return f"{_three(seconds / size)} {unit}"
    raise AssertionError


def _judged(judging: Sequence[Judging], gpus: int, price: float | None) -> list[tuple[str, str]]:
    found = []
    for each in judging:
        name = f"1M judgments, {each.mode}"
        if each.seconds is None:
            found.append((name, f"not known: {each.why}"))
        else:
            found.append((name, _with_range(each.seconds, duration) + _priced(each.seconds, gpus, price)))
    return found


def _memory(estimate: Estimate, room: float | None) -> str:
    peak = estimate.memory.peak
    parts = ", ".join(
        f"{name} {_gib(size)}" for name, size in estimate.memory.parts.items() if size > 0.05 * GIB
    )
    said = ""
    if room is not None:
        answer = fits(estimate, room)
        verdict = "it may not fit" if answer is None else "it fits" if answer else "it does NOT fit"
        said = f" of {_gib(room)} GiB: {verdict}"
    return f"{_range(peak, _gib)} GiB a device{said} ({parts})"


def _of_lengths(lengths: Lengths, *, scalar: bool) -> str:
    what = "texts" if scalar else "prompts"
    answer = "" if scalar else f"; an answer {lengths.answer:,}"
    return f"{what} of {lengths.mean:,.0f} tokens on average, {lengths.longest:,} at most{answer}"


def _footnotes(lengths: Lengths, rates: Rates, kinds: set[str], gpus: int, engine: str) -> list[str]:
    said: dict[str, list[str]] = {}
    for kind, source in rates.sources.items():
        if kind in kinds:
            said.setdefault(source, []).append(kind)
    notes = [f"{', '.join(names)}: {source}" for source, names in said.items()]
    notes += [*rates.notes, *lengths.notes]
    if gpus > 1:
        sharded = "weights and optimizer sharded" if engine == "verl" else "each holding the whole model"
        notes.append(
            f"{gpus} devices share each step's prompts evenly, {sharded}; what they tell each other is not counted"
        )
    if engine == "verl":
        notes.append("vLLM's own share of the memory is not counted: verl takes turns with it")
    return [f"- {note}" for note in notes]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _pairs(facts: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in facts)
    return [f"{name:<{width}}  {value}" for name, value in facts]


def _with_range(value: Range, show: Callable[[float], str]) -> str:
    return f"{show(value.middle)} ({_range(value, show)})"


def _range(value: Range, show: Callable[[float], str]) -> str:
    low, high = show(value.low), show(value.high)
    return low if low == high else f"{low} to {high}"


def _priced(seconds: Range, gpus: int, price: float | None) -> str:
    return "" if price is None else f", cost {_with_range(cost(seconds, gpus, price), _money)}"


def _money(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def _count(weights: int) -> str:
    return f"{weights / 1e9:.3g}B" if weights >= 1e9 else f"{weights / 1e6:.3g}M"


def _three(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value >= 0.001 else f"{value:.1g}"
