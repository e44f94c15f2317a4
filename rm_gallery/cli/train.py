"""`rmg train`: train a judge from a YAML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rm_gallery.core.train import TrainConfig
    from rm_gallery.core.train.run_folder import RunFolder


def train(
    config: Path = typer.Argument(help="The training YAML."),
    engine: str = typer.Option(None, "--engine", help="local or verl; overrides the YAML."),
    set_: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Override one key; may be repeated."
    ),
    out: Path | None = typer.Option(None, help="The run's folder. Default: <output_dir>/<time>."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the newest complete checkpoint."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Check the configuration and the rows, and print it; load no model."
    ),
    address: str = typer.Option(
        None, "--address", help="Engine verl: the dashboard of a Ray cluster to submit to, http://HEAD:8265."
    ),
) -> None:
    """Train a judge as a YAML says.

    Example:  rmg train examples/train/pointwise/train.yaml --set train.max_steps=10
    """
    from rm_gallery.core.errors import ConfigError
    from rm_gallery.core.train import load_config

    overrides = [*set_, *([f"engine={engine}"] if engine else [])]
    loaded = load_config(config, overrides)
    if loaded.engine == "verl":
        _verl(loaded, out, resume=resume, dry_run=dry_run, address=address)
        return
    if address:
        raise ConfigError("--address is for engine verl: add --engine verl")
    _local(loaded, out, resume=resume, dry_run=dry_run)


def _local(loaded: TrainConfig, out: Path | None, *, resume: bool, dry_run: bool) -> None:
    from rm_gallery.core.models.require import require
    from rm_gallery.core.train.run_folder import is_main_process

    require("train", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
    from rm_gallery.core.train.local import check_rows, train_local

    if dry_run:
        import yaml

        for note in check_rows(loaded):
            typer.echo(note, err=True)
        typer.echo(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    result = train_local(loaded, resume=resume, path=out)
    if not is_main_process():
        return
    for note in result.notes:
        typer.echo(note, err=True)
    left_out = f", {result.overlong} left out as too long" if result.overlong else ""
    if result.overlong_val:
        left_out += f", {result.overlong_val} held-out ones too"
    typer.echo(
        f"Trained {result.steps} steps on {result.train_rows} {result.unit}{left_out}: {result.run.latest}"
    )
    _say_how_good(result.run)
    held_out = f" --data {loaded.data.val}" if loaded.data.val else " --data FILE.parquet"
    typer.echo(f"Next:  rmg eval --model {result.run.latest}{held_out} --train {loaded.data.train}")


def _verl(loaded: TrainConfig, out: Path | None, *, resume: bool, dry_run: bool, address: str | None) -> None:
    from rm_gallery.core.train.progress import StepProgress
    from rm_gallery.core.train.run_folder import RunFolder
    from rm_gallery.core.train.verl.launch import check_rows_here, plan_verl, train_verl, write_resolved
    from rm_gallery.core.train.verl.process import printed

    def say(text: str) -> None:
        typer.echo(text, err=True)

    if dry_run:
        folder = out or Path()
        plan = plan_verl(loaded, (out or RunFolder.new_path(loaded)).absolute(), elsewhere=True)
        for note in check_rows_here(plan):
            say(note)
        typer.echo(printed(plan.words, plan.environment))
        say(f"verl's whole configuration: {write_resolved(plan, folder)}")
        return
    if address:
        from rm_gallery.core.train.verl.submit import packed, submit

        found = RunFolder.find(loaded, out, written=packed(loaded)) if resume else None
        run = (found.path if found else out or RunFolder.new_path(loaded)).absolute()
        plan_verl(loaded, run, elsewhere=True)  # what is wrong with it is better known here than there
        submit(loaded, run, address, resume=resume, say=typer.echo)
    else:
        bar = StepProgress("grpo, verl")
        try:
            trained = train_verl(
                loaded,
                resume=resume,
                path=out,
                say=say,
                begin=bar.start,
                record=bar.show,
            )
        finally:
            bar.close()
        run = trained.path
        _say_how_good(trained)
    typer.echo(f"Trained: {run}/actor_latest")
    typer.echo(f"Next:  rmg merge {run}/actor_latest {run}/merged")


def _say_how_good(run: RunFolder) -> None:
    from rm_gallery.core.train.log import read_log
    from rm_gallery.core.train.progress import beside_a_constant

    said = beside_a_constant(read_log(run.metrics))
    if said:
        typer.echo(said)
