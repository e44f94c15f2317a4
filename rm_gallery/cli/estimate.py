"""`rmg estimate`: what a run will take, before it is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

_VERDICT = 10
"""Tokens of a verdict with the end of its turn."""
_SHORT = 32
"""Tokens: a longer answer holds a reasoning, and its verdicts cannot be weighed without it."""

if TYPE_CHECKING:
    from rm_gallery.core.estimate import Estimate, Machine, Range, Rates
    from rm_gallery.core.train import TrainConfig


def estimate(
    target: str = typer.Argument(
        metavar="CONFIG",
        help="The training YAML; or a model (a folder, or a size such as 7B): its judging alone.",
    ),
    machine: str = typer.Option(
        None,
        "--machine",
        help="a100, h100, h200, l4, rtx4090, or cpu: this one, measured now. Default: what is here.",
    ),
    gpus: int = typer.Option(1, min=1, help="Devices that share each step's prompts."),
    from_: Path | None = typer.Option(
        None, "--from", metavar="RUN", help="A run of rmg train on that machine: its seconds give the rates."
    ),
    mfu: str = typer.Option(None, help="Share of the peak that is reached: 0.4, or 0.2..0.5."),
    price: float | None = typer.Option(None, min=0, help="Of a device for an hour, in any currency."),
    prompt: int | None = typer.Option(None, min=1, help="Tokens of a prompt. Default: those of the data."),
    response: int | None = typer.Option(
        None, min=1, help="Tokens of an answer. Default: those of a verdict."
    ),
    rows: int | None = typer.Option(None, min=1, help="Training rows. With --prompt no data is read."),
    sizes: str = typer.Option(None, help="The same with Qwen2.5 of these sizes: 0.5B,1.5B,7B,14B."),
    set_: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Override one key of the YAML; may be repeated."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON; a range is [low, middle, high]."),
) -> None:
    """Estimate a training run: seconds of each phase, hours, memory, cost, and a million judgments afterwards.

    Example:  rmg estimate examples/train/pointwise/train.yaml --machine h100 --gpus 8 --price 3
    """
    from rm_gallery.core.errors import ConfigError

    share = _share(mfu)
    if not target.endswith((".yaml", ".yml")):
        if sizes or rows or set_:
            raise ConfigError(
                f"--sizes, --rows and --set are for a training YAML, and {target} is taken for a model"
            )
        _judge(target, machine, from_, share, gpus, price, prompt, response, as_json)
        return
    from rm_gallery.core.estimate import estimate_training, known_size, read_lengths, read_model
    from rm_gallery.core.estimate.plan import in_numbers
    from rm_gallery.core.estimate.view import sizes_view, training_view
    from rm_gallery.core.train import load_config

    config = load_config(target, set_)
    wanted = [known_size(name) for name in sizes.split(",")] if sizes else []
    model = (
        wanted[0]
        if wanted
        else read_model(config.model.path, trust_remote_code=config.model.trust_remote_code)
    )
    lengths = read_lengths(config, rows=rows, prompt=prompt, answer=response)
    device, rates = _rates(machine, from_, share, gpus, _dtype(config), config.engine)
    found = [estimate_training(config, size, lengths, rates, gpus=gpus) for size in (wanted or [model])]
    if as_json:
        _print_json(
            [in_numbers(each, rates, price) for each in found]
            if wanted
            else in_numbers(found[0], rates, price)
        )
        return
    room = device.memory if device else None
    again = _again(
        machine=machine,
        gpus=gpus if gpus > 1 else None,
        price=price,
        prompt=prompt,
        response=response,
        rows=rows,
    )
    if wanted:
        typer.echo(sizes_view(found, price=price))
        typer.echo(f"\nNext:  rmg estimate {target} --set model.path=Qwen/{wanted[-1].name}-Instruct{again}")
        return
    typer.echo(training_view(config, lengths, found[0], rates, price=price, room=room))
    typer.echo(f"\nNext:  {_next(target, config, found[0], room, again, set_)}")


def _judge(
    name: str,
    machine: str | None,
    run: Path | None,
    share: Range | None,
    gpus: int,
    price: float | None,
    prompt: int | None,
    response: int | None,
    as_json: bool,
) -> None:
    from dataclasses import replace

    from rm_gallery.core.errors import ConfigError
    from rm_gallery.core.estimate import SIZES, given_lengths, judge_modes, read_model
    from rm_gallery.core.estimate.plan import judging_in_numbers, rates_in_numbers
    from rm_gallery.core.estimate.view import judging_view

    model = read_model(name)
    if prompt is None:
        raise ConfigError(
            "a model alone does not say how long its prompts are: add --prompt TOKENS, or name a YAML"
        )
    answer = response or _VERDICT
    lengths = given_lengths(1, prompt, answer, tree=2 * answer if answer <= _SHORT else None)
    said = (
        []
        if response
        else [f"an answer is taken to be {answer} tokens, a verdict without reasoning: --response N"]
    )
    if lengths.tree:
        said.append(f"all legal verdicts together are taken to be {lengths.tree} tokens behind a prompt")
    lengths = replace(lengths, notes=tuple(said))
    _, rates = _rates(machine, run, share, gpus, "bfloat16", "local")
    judging = judge_modes(None, model, lengths, rates, gpus=gpus)
    if as_json:
        _print_json(
            {
                "model": name,
                "parameters": model.parameters,
                "gpus": gpus,
                "judging": judging_in_numbers(tuple(judging), gpus, price),
                "rates": rates_in_numbers(rates),
            }
        )
        return
    typer.echo(judging_view(name, model.parameters, lengths, judging, rates, gpus=gpus, price=price))
    place = f"Qwen/{model.name}-Instruct" if model in SIZES.values() else name
    typer.echo(f"\nNext:  rmg eval --model {place} --data FILE.parquet")


def _rates(
    machine: str | None, run: Path | None, share: Range | None, gpus: int, dtype: str, engine: str
) -> tuple[Machine | None, Rates]:
    """The machine, where one is named or measured, and how fast it is."""
    from rm_gallery.core.errors import ConfigError
    from rm_gallery.core.estimate import Run, find_machine, rates_from, rates_of, this_machine

    if run is not None and share is not None:
        raise ConfigError("--from measures what --mfu would say: give one of them")
    timed = Run.read(run) if run else None
    device = find_machine(machine) if machine else None if timed else this_machine()
    if device is not None and not device.gpu and gpus > 1:
        raise ConfigError(
            f"--gpus {gpus} is for GPUs: processes on one CPU share its units; name one with --machine"
        )
    known = rates_of(device, dtype, mfu=share, engine=engine) if device else None
    if timed is None:
        assert known is not None
        return device, known
    return device, rates_from(timed, known)


def _next(
    target: str,
    config: TrainConfig,
    found: Estimate,
    room: float | None,
    again: str,
    set_: list[str],
) -> str:
    """The same with less where it does not fit, else the training itself."""
    from rm_gallery.core.estimate import SIZES
    from rm_gallery.core.estimate.view import fits

    path, known = config.model.path, found.model in SIZES.values()
    # a size is enough to estimate, and not to train
    hub = [
        each.replace(f"model.path={path}", f"model.path=Qwen/{found.model.name}-Instruct") for each in set_
    ]
    overrides = "".join(f" --set {each}" for each in (hub if known else set_))
    if fits(found, room) is False:
        parts = found.memory.parts
        many = config.micro_batch_size > 1 and parts["activations"] > parts["weights"] + parts["optimizer"]
        if many or config.model.lora is not None:
            smaller = (
                "train.micro_batch_size=1" if config.micro_batch_size > 1 else "data.max_prompt_length=1024"
            )
        else:
            smaller = "model.lora.rank=16"
        return f"rmg estimate {target}{overrides} --set {smaller}{again}"
    if found.gpus > 1 and config.engine == "local":
        launcher = f"accelerate launch --num_processes {found.gpus} -m rm_gallery"
        return f"{launcher} train {target}{overrides} --out runs/first"
    return f"rmg train {target}{overrides}"


def _again(**options: object) -> str:
    """The options that were given, to be given again."""
    return "".join(
        f" --{name} {value:g}" if isinstance(value, float) else f" --{name} {value}"
        for name, value in options.items()
        if value is not None
    )


def _dtype(config: TrainConfig) -> str:
    return "float32" if config.model.dtype == "float32" else "bfloat16"


def _share(text: str | None) -> Range | None:
    from rm_gallery.core.errors import ConfigError
    from rm_gallery.core.estimate import Range

    if text is None:
        return None
    low, dots, high = text.partition("..")
    try:
        ends = float(low), float(high if dots else low)
    except ValueError:
        ends = (0.0, 0.0)
    if not 0 < ends[0] <= ends[1] <= 1:
        raise ConfigError(f"--mfu is {text!r}; expected a share above 0 and at most 1, as 0.4 or 0.2..0.5")
    return Range.between(*ends)


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))
