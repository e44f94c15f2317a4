"""`Rates`: how fast each kind of work goes, from shares of a machine's peak or from a run that was timed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.estimate.lengths import SCALAR, Lengths, given_lengths, read_lengths
from rm_gallery.core.estimate.machine import (
    CPU_BANDWIDTH,
    CPU_COMPUTE,
    GPU_BANDWIDTH,
    GPU_COMPUTE,
    LAUNCH,
    NOTHING,
    STREAM,
    Machine,
    Range,
)
from rm_gallery.core.estimate.model import Transformer, read_model
from rm_gallery.core.estimate.work import Work, samples, step_work
from rm_gallery.core.train.config import TrainConfig, check_config
from rm_gallery.core.train.log import read_log
from rm_gallery.core.yaml_config import read_yaml

_UNUSUAL = 2.5
"""Times the median: a step that took longer had company, or slept."""
_SLACK = 1.25
"""By so much the second half of a run was off from what its first half said, on a machine with other work
(`benchmarks/estimate.py`): no range from a run is narrower."""
_PADDED = 1.7
"""Off by so much, in the median, was what a run that pads said of one that does not, and the other way round."""


@dataclass(frozen=True)
class Rates:
    """What is done in a second.

    Attributes:
        forward, update: operations.
        decode: bytes; None where nothing is known of it.
        optimizer: bytes; None where the update's rate holds it already.
        launch, launch_decode: seconds a layer that a pass through the model takes at least.
        gpu: whether that is on a GPU, where a judge's weights are in the dtype of the computation.
        sources: where each is from, by its name.
    """

    forward: Range
    update: Range
    decode: Range | None
    optimizer: Range | None
    launch: Range = NOTHING
    launch_decode: Range = NOTHING
    gpu: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def seconds(self, work: Work, layers: int) -> Range | None:
        """What `work` takes; None where nothing is known of its rate."""
        if work.kind == "optimizer":
            return NOTHING if self.optimizer is None else _over(work.read, self.optimizer)
        launch = self.launch_decode if work.kind == "decode" else self.launch
        least = launch.times(work.passes * layers)
        if work.kind == "decode":
            if self.decode is None:
                return None
            return _over(work.read, self.decode).most(_over(work.operations, self.forward)).most(least)
        return _over(work.operations, self.forward if work.kind == "forward" else self.update).most(least)


def _over(amount: float, rate: Range) -> Range:
    return Range(amount / rate.high, amount / rate.middle, amount / rate.low)


def rates_of(machine: Machine, dtype: str, *, mfu: Range | None = None, engine: str = "local") -> Rates:
    """Shares of the machine's peak; `mfu` replaces what is assumed of matrix work."""
    compute = mfu or (GPU_COMPUTE if machine.gpu else CPU_COMPUTE)
    bandwidth = GPU_BANDWIDTH if machine.gpu else CPU_BANDWIDTH
    products = compute.times(machine.peak(dtype))
    said = "given" if mfu else "assumed" if machine.gpu else "as in this project's runs on a CPU"
    share = f"{compute.low:.0%} to {compute.high:.0%} of {machine.peak(dtype) / 1e12:,.3g} TFLOP/s, {said}"
    reads = f"{bandwidth.low:.0%} to {bandwidth.high:.0%} of {machine.bandwidth / 1e9:,.4g} GB/s"
    reads += ", assumed" if machine.gpu else ", as in this project's runs on a CPU"
    notes = []
    if machine.gpu:
        notes.append(
            f"{machine.name}: peaks are of the {machine.source}; what share of them is reached, and the least that a pass "
            "through a small model takes, are assumptions: this project has measured nothing on a GPU. Calibrate with "
            "--from RUN once a few steps are done"
        )
    else:
        notes.append(f"{machine.name}: {machine.source}; other work beside it makes both figures smaller")
    return Rates(
        forward=products,
        update=products,
        decode=bandwidth.times(machine.bandwidth),
        optimizer=STREAM.times(machine.bandwidth),
        launch=LAUNCH["transformers"] if machine.gpu else NOTHING,
        launch_decode=LAUNCH["vllm" if engine == "verl" else "transformers"] if machine.gpu else NOTHING,
        gpu=machine.gpu,
        sources={"forward": share, "update": share, "decode": reads},
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class Timed:
    """A step of a run: its number, what it had to do, and the seconds that were recorded of it."""

    step: int
    prompt: float
    work: Sequence[Work]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished or unfinished run of `rmg train`, engine local."""

    path: Path
    config: TrainConfig
    model: Transformer
    steps: Sequence[Timed]

    @property
    def pads(self) -> bool:
        """Whether the texts of a pass are padded to one length, as far as the sizes of the model tell."""
        encoder = self.config.method in SCALAR and not self.model.causal
        return encoder or not self.config.model.shared_prefix

    @classmethod
    def read(cls, path: Path) -> Run:
        """The run's folder.

        Raises:
            ConfigError, DataError: it is no run, it is one of engine verl, or no step of it was recorded.
        """
        if not (path / "config.yaml").is_file() or not (path / "metrics.jsonl").is_file():
            raise ConfigError(
                f"{path} holds no run with a step done: there is no config.yaml or no metrics.jsonl in it; name the "
                "folder of a run of rmg train"
            )
        values = read_yaml(path / "config.yaml", "the configuration of a run")
        # what the loss was does not matter here, and a later version may name it otherwise
        config = check_config(values, str(path / "config.yaml"))
        if config.engine != "local":
            raise ConfigError(
                f"{path} was trained by engine {config.engine}; --from takes runs of engine local"
            )
        saved = path / "actor_latest"
        place = str(saved) if (saved / "config.json").is_file() else config.model.path
        model = read_model(place, trust_remote_code=config.model.trust_remote_code)
        here = config.model_copy(update={"model": config.model.model_copy(update={"path": place})})
        said = given_lengths(1, 1, 0)
        if config.method not in ("bradley_terry", "regression"):
            said = read_lengths(here, rows=1, prompt=1)
        steps = []
        for record in read_log(path / "metrics.jsonl"):
            if record.get("split", "train") != "train" or not record.get("tokens_per_second"):
                continue
            lengths = _lengths(config, record, said)
            steps.append(Timed(record["step"], lengths.mean, step_work(config, model, lengths), record))
        if not steps:
            raise DataError(f"{path / 'metrics.jsonl'} has no step with timing_s/step and tokens_per_second")
        return cls(path, config, model, steps)

    def only(self, steps: Sequence[Timed]) -> Run:
        """The same run with these steps alone."""
        return replace(self, steps=steps)


def _lengths(config: TrainConfig, record: Mapping[str, Any], said: Lengths) -> Lengths:
    """Of a step, from the tokens that it counted; what it did not count is as `said`."""
    answer = said.answer
    tokens = record["tokens_per_second"] * record["timing_s/step"] / config.train.batch_size
    if samples(config):
        answer = max(1, round(record["response_length/mean"]))
        tokens = tokens / config.rollout.n - answer
    elif config.method == "sft":
        tokens -= answer
    elif config.method == "bradley_terry":
        tokens /= 2
    found = given_lengths(config.train.batch_size, max(1, round(tokens)), answer, tree=said.tree)
    return replace(found, behind=said.behind)


def rates_from(run: Run, otherwise: Rates | None = None) -> Rates:
    """The rates that a run reached: the median of its steps, and what most of them lie in.

    What it did not time is that of `otherwise`: a forward pass is then taken to go as fast as an update.
    """
    timed: dict[str, list[float]] = {"forward": [], "update": [], "decode": []}
    for step in run.steps:
        seconds, work = step.record, {part.phase: part for part in step.work}
        whole = seconds.get("timing_s/update", seconds["timing_s/step"])
        timed["update"].append(work["update"].operations / whole)
        if "log_probs" in work and seconds.get("timing_s/log_probs"):
            timed["forward"].append(work["log_probs"].operations / seconds["timing_s/log_probs"])
    forward = _spread(timed["forward"] or timed["update"])
    for step in run.steps:
        work = {part.phase: part for part in step.work}
        if "decode" in work and step.record.get("timing_s/generate"):
            # both are in one figure: reading the prompts goes as fast as scoring them
            reading = work["prefill"].operations / forward.middle
            left = step.record["timing_s/generate"] - reading
            if left > 0.05 * step.record["timing_s/generate"]:
                timed["decode"].append(work["decode"].read / left)
    name = run.path.name
    sources = {
        "update": f"measured in {name}: {_flops(_spread(timed['update']).middle)}, the optimizer included"
    }
    sources["forward"] = (
        f"measured in {name}: {_flops(forward.middle)}" if timed["forward"] else f"as the update of {name}"
    )
    if timed["decode"]:
        decode: Range | None = _spread(timed["decode"])
        assert decode is not None
        sources["decode"] = f"measured in {name}: {decode.middle / 1e9:.3g} GB/s"
    else:
        decode = otherwise.decode if otherwise else None
        sources["decode"] = otherwise.sources["decode"] if otherwise else f"not timed in {name}"
    return Rates(
        forward=forward,
        update=_spread(timed["update"]),
        decode=decode,
        optimizer=None,
        gpu=otherwise is not None and otherwise.gpu,
        sources=sources,
        notes=tuple(_said(run)),
    )


def _spread(values: Sequence[float]) -> Range:
    """The median, between the tenth and the ninetieth percentile, and no narrower than `_SLACK`."""
    middle = statistics.median(values)
    low, high = min(values), max(values)
    if len(values) > 3:
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        low, high = tenths[0], tenths[-1]
    return Range(min(low, middle / _SLACK), middle, max(high, middle * _SLACK))


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.3g} GFLOP/s"


def _said(run: Run) -> list[str]:
    seconds = [step.record["timing_s/step"] for step in run.steps]
    usual = statistics.median(seconds)
    notes = [
        f"the range is that of most of the {len(seconds)} steps of {run.path}, at least a factor of {_SLACK:g} either way"
    ]
    if run.pads:
        notes.append(f"it pads its texts: of a run that does not, expect {_PADDED:g} times the speed")
    else:
        notes.append(
            f"it pads nothing: of a run that does (an encoder's, or with model.shared_prefix false), expect {_PADDED:g} "
            "times the seconds"
        )
    notes += [
        f"step {step.step} of {run.path.name} took {took / usual:.1f} times as long as its median"
        for step, took in zip(run.steps, seconds, strict=True)
        if took > _UNUSUAL * usual
    ]
    return notes
