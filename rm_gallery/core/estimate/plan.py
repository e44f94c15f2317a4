"""`estimate_training`, `estimate_judging`: from a configuration, lengths and rates to seconds, bytes and money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.estimate.counts import Shape, forward_operations
from rm_gallery.core.estimate.lengths import SCALAR, Lengths
from rm_gallery.core.estimate.machine import NOTHING, Range
from rm_gallery.core.estimate.memory import Memory, memory_of
from rm_gallery.core.estimate.model import Transformer
from rm_gallery.core.estimate.rates import Rates
from rm_gallery.core.estimate.work import (
    Work,
    decode_work,
    evaluations,
    expected_operations,
    step_work,
    steps_of,
)
from rm_gallery.core.train.config import TrainConfig

MILLION = 10**6
TOGETHER = 16
"""Answers that a judge writes at once, as `rmg eval` asks for them."""
BATCH_TOKENS = 8192
"""Tokens that it encodes at once in mode `expected` (`LocalJudge`)."""


@dataclass(frozen=True)
class Phase:
    """A part of a step with its seconds; None where no rate is known."""

    work: Work
    seconds: Range | None


@dataclass(frozen=True)
class Judging:
    """A million judgments in one mode: `expected`, `greedy`, or `score` of a scalar model.

    `seconds` is None where no rate is known; `why` says which one.
    """

    mode: str
    operations: float
    seconds: Range | None
    why: str = ""


@dataclass(frozen=True)
class Estimate:
    """A training run, before it is started.

    Attributes:
        steps, evaluations: how many.
        phases: of one step on one of `gpus` devices.
        evaluation: seconds of one held-out evaluation.
        judging: of a million rows like those that it is trained on, afterwards.
    """

    model: Transformer
    gpus: int
    steps: int
    evaluations: int
    phases: tuple[Phase, ...]
    evaluation: Range
    memory: Memory
    judging: tuple[Judging, ...]

    @property
    def step(self) -> Range:
        return _sum(phase.seconds for phase in self.phases)

    @property
    def seconds(self) -> Range:
        """Of the whole run; loading and saving the model are not counted."""
        return self.step.times(self.steps).plus(self.evaluation.times(self.evaluations))


def cost(seconds: Range, gpus: int, price: float) -> Range:
    """At `price` for each device and hour."""
    return seconds.times(gpus * price / 3600)


def estimate_training(
    config: TrainConfig, model: Transformer, lengths: Lengths, rates: Rates, *, gpus: int = 1
) -> Estimate:
    """A run on `gpus` devices that share each step's prompts evenly; what they tell each other is not counted.

    Raises:
        ConfigError: a rate is not known, the prompts of an update cannot be shared evenly, or there are fewer rows than
            a batch.
    """
    check_shared(config, gpus)
    steps = steps_of(config, lengths.rows)
    if config.train.max_steps is None and lengths.rows < config.train.batch_size:
        raise ConfigError(
            f"{lengths.rows} training rows do not fill one batch: set train.batch_size to {lengths.rows} or less"
        )
    phases = []
    for work in step_work(config, model, lengths, gpus):
        seconds = rates.seconds(work, model.layers)
        if seconds is None:
            raise ConfigError(
                f"{work.phase} was {rates.sources.get(work.kind, 'not timed')}: add --machine NAME, or calibrate from a "
                "run of method grpo"
            )
        phases.append(Phase(work, seconds))
    judging = tuple(judge_modes(config, model, lengths, rates, gpus=gpus))
    held_out, count = NOTHING, 0
    if lengths.held_out:
        count = evaluations(config, steps)
        used = judging[-1].seconds  # greedy, or the only one
        held_out = used.times(lengths.held_out / MILLION) if used else NOTHING
    return Estimate(
        model, gpus, steps, count, tuple(phases), held_out, memory_of(config, model, lengths, gpus), judging
    )


def judge_modes(
    config: TrainConfig | None, model: Transformer, lengths: Lengths, rates: Rates, *, gpus: int = 1
) -> list[Judging]:
    """A million judgments, in each mode that the judge has; without a configuration, of a judge that writes."""
    rows = MILLION / gpus
    if config is not None and config.method in SCALAR:
        each = _mean_forward(model.without_head, lengths)
        return [
            _judging("score", [Work("forward", "forward", each * rows, passes=rows / TOGETHER)], model, rates)
        ]
    found = []
    if lengths.tree is not None:
        weighed = expected_operations(model.shape, lengths) * rows
        passes = rows * (lengths.mean + lengths.tree) / BATCH_TOKENS
        found.append(_judging("expected", [Work("forward", "forward", weighed, passes=passes)], model, rates))
    body = Shape(model.shape.layer_weights, 0, model.shape.attention_width, model.layers)
    number = 4 if config is not None and config.model.dtype == "float32" else 2
    decode = decode_work(
        model,
        lengths,
        prompts=rows,
        samples=1,
        together=TOGETHER,
        weight=number if rates.gpu else 4,  # on a CPU weights stay in float32
        number=number,
    )
    prefill = Work("prefill", "forward", _mean_forward(body, lengths) * rows, passes=rows / TOGETHER)
    found.append(_judging("greedy", [prefill, decode], model, rates))
    return found


def check_shared(config: TrainConfig, gpus: int) -> None:
    """Refuse what `rmg train` would refuse on so many devices. Raises `ConfigError`."""
    micro = config.train.micro_batch_size or max(1, config.mini_batch_size // gpus)
    if config.engine == "local" and config.mini_batch_size % (micro * gpus):
        raise ConfigError(
            f"train.mini_batch_size ({config.mini_batch_size}) must be a multiple of train.micro_batch_size x GPUs "
            f"({micro} x {gpus}): add --set train.mini_batch_size=N --set train.batch_size=N"
        )


def in_numbers(estimate: Estimate, rates: Rates, price: float | None) -> dict[str, Any]:
    """For `--json`; a range is [low, middle, high], and what is not known is null."""
    gpus = estimate.gpus
    return {
        "model": estimate.model.name,
        "parameters": estimate.model.parameters,
        "gpus": gpus,
        "steps": estimate.steps,
        "phases": [
            {
                "phase": phase.work.phase,
                "operations": phase.work.operations,
                "bytes": phase.work.read,
                "seconds": _ends(phase.seconds),
            }
            for phase in estimate.phases
        ],
        "step_seconds": _ends(estimate.step),
        "evaluations": estimate.evaluations,
        "evaluation_seconds": _ends(estimate.evaluation),
        "seconds": _ends(estimate.seconds),
        "cost": None if price is None else _ends(cost(estimate.seconds, gpus, price)),
        "memory_bytes": {**estimate.memory.parts, "peak": _ends(estimate.memory.peak)},
        "judging": judging_in_numbers(estimate.judging, gpus, price),
        "rates": rates_in_numbers(rates),
    }


def judging_in_numbers(judging: tuple[Judging, ...], gpus: int, price: float | None) -> list[dict[str, Any]]:
    return [
        {
            "mode": each.mode,
            "rows": MILLION,
            "operations": each.operations * gpus,
            "seconds": _ends(each.seconds),
            "cost": None if price is None or each.seconds is None else _ends(cost(each.seconds, gpus, price)),
        }
        for each in judging
    ]


def rates_in_numbers(rates: Rates) -> dict[str, Any]:
    named: Mapping[str, Range | None] = {
        "forward": rates.forward,
        "update": rates.update,
        "decode": rates.decode,
    }
    return {
        name: {"per_second": _ends(rate), "source": rates.sources.get(name)} for name, rate in named.items()
    }


def _judging(mode: str, parts: list[Work], model: Transformer, rates: Rates) -> Judging:
    operations = sum(part.operations for part in parts)
    seconds = [rates.seconds(part, model.layers) for part in parts]
    if None in seconds:
        return Judging(mode, operations, None, f"decoding was {rates.sources.get('decode', 'not timed')}")
    return Judging(mode, operations, _sum(seconds))


def _mean_forward(shape: Shape, lengths: Lengths) -> float:
    return sum(forward_operations(shape, text, 1, 1) for text in lengths.texts) / len(lengths.texts)


def _sum(seconds: Any) -> Range:
    total = NOTHING
    for part in seconds:
        total = total.plus(part or NOTHING)
    return total


def _ends(value: Range | None) -> list[float] | None:
    return None if value is None else [value.low, value.middle, value.high]
