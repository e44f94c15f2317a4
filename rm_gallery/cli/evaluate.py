"""`rmg eval`: measure a judge on labelled rows, beside the predictors that cost nothing."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from rm_gallery.cli.progress import bar
from rm_gallery.core.errors import ConfigError


def evaluate(
    model: str = typer.Option(..., help="Folder of the model."),
    data: Path = typer.Option(..., help="Labelled rows: .parquet, .jsonl, .jsonl.gz or .json."),
    train: Path | None = typer.Option(
        None, help="Labelled rows to fit the trivial baselines on; never the evaluated ones."
    ),
    task: str | None = typer.Option(
        None,
        help="pointwise, pairwise or module.path:Class. Default: the saved judge's, else by the columns.",
    ),
    mode: str = typer.Option("greedy", help="How a verdict is taken: greedy."),
    out: Path | None = typer.Option(
        None, help="Output folder. Default: runs/eval/<the model's last two folders>-<data>."
    ),
    limit: int | None = typer.Option(None, min=1, help="Only the first N rows."),
    batch_size: int = typer.Option(16, min=1, help="Questions asked at a time."),
    max_new_tokens: int | None = typer.Option(
        None,
        min=1,
        help="Where an answer is cut off. Default: as in training; untrained 32, or 2048 with reasoning.",
    ),
    dtype: str = typer.Option(
        "float32", help="Of the computation: float32, bfloat16, or auto for the fastest."
    ),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with the model."
    ),
    seed: int = typer.Option(0, help="Seed of the resampling behind the intervals."),
    as_json: bool = typer.Option(False, "--json", help="Print metrics.json instead of the table."),
) -> None:
    """Measure a judge on labelled rows, beside the predictors that cost nothing.

    Writes metrics.json, summary.json and predictions.parquet under --out. A run that was stopped goes on where
    it stopped when the same command is given again.

    Example:

    rmg eval --model runs/judge --data data/test.parquet --train data/train.parquet
    """
    from rm_gallery.core.evaluate.model import evaluate_model

    if dtype not in ("float32", "bfloat16", "auto"):
        raise ConfigError(f"--dtype is {dtype!r}; it can be float32, bfloat16 or auto")
    folder = out or Path("runs/eval") / "-".join([*Path(model).parts[-2:], data.name.split(".")[0]]).strip(
        "/"
    )
    try:
        result = evaluate_model(
            model,
            data,
            folder,
            train=train,
            task=task,
            mode=mode,
            limit=limit,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            seed=seed,
            progress=lambda total: bar("judging", total, quiet=as_json),
        )
    except KeyboardInterrupt:
        typer.echo("stopped; the answers so far are kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(result.to_metrics_json(), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from rm_gallery.core.evaluate.table import print_result

    print_result(Console(), result)
    typer.echo(f"\nWritten to {folder}. Next:  rmg report {folder} --out {folder / 'report.html'}")
