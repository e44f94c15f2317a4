"""`rmg train`: train a judge from a YAML."""

from __future__ import annotations

from pathlib import Path

import typer


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
) -> None:
    """Train a judge as a YAML says.

    Example:  rmg train examples/train/pointwise/train.yaml --set train.max_steps=10
    """
    from rm_gallery.core.models.require import require
    from rm_gallery.core.train import load_config
    from rm_gallery.core.train.run_folder import is_main_process

    overrides = [*set_, *([f"engine={engine}"] if engine else [])]
    loaded = load_config(config, overrides)
    require("train", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
    from rm_gallery.core.train.local import check_rows, train_local

    if dry_run:
        import yaml

        check_rows(loaded)
        typer.echo(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    result = train_local(loaded, resume=resume, path=out)
    if not is_main_process():
        return
    left_out = f", {result.overlong} prompts left out as too long" if result.overlong else ""
    if result.overlong_val:
        left_out += f", {result.overlong_val} held-out prompts too"
    typer.echo(f"Trained {result.steps} steps on {result.train_rows} rows{left_out}: {result.run.latest}")
    held_out = f" --data {loaded.data.val}" if loaded.data.val else " --data FILE.parquet"
    typer.echo(f"Next:  rmg eval --model {result.run.latest}{held_out} --train {loaded.data.train}")
