"""`rmg eval`: measure a judge on labelled rows or on a benchmark, beside the predictors that cost nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rm_gallery.cli.options import TASKS
from rm_gallery.cli.progress import bar
from rm_gallery.core.errors import ConfigError

if TYPE_CHECKING:
    from rm_gallery.core.evaluate.result import EvalResult
    from rm_gallery.core.judge.subject import Candidate


def evaluate(
    run: Path | None = typer.Argument(
        None, metavar="[RUN]", help="A run of rmg train; with --every-checkpoint."
    ),
    model: str | None = typer.Option(
        None,
        help="A folder or hub id of a judge or of a scalar (Bradley-Terry) model; openai:NAME for one behind an endpoint.",
    ),
    data: Path | None = typer.Option(None, help="Labelled rows: .parquet, .jsonl, .jsonl.gz or .json."),
    benchmark: str | None = typer.Option(None, help="A published benchmark; --benchmark list names them."),
    path: Path | None = typer.Option(None, help="The benchmark's file or folder, as its publisher has it."),
    judgments: Path | None = typer.Option(
        None, help="Recorded verdicts on the benchmark, instead of a model."
    ),
    train: Path | None = typer.Option(
        None, help="Labelled rows to fit the trivial baselines on; never the evaluated ones."
    ),
    task: str | None = typer.Option(
        None,
        help=f"{TASKS}. Default: the saved judge's, else by the columns; pairwise on a benchmark.",
    ),
    mode: str = typer.Option(
        "greedy",
        help="How a verdict is taken: greedy (written), expected (its exact distribution), vote (of --samples).",
    ),
    samples: int = typer.Option(8, min=1, help="Answers to each question in mode vote."),
    every_checkpoint: bool = typer.Option(
        False, "--every-checkpoint", help="Evaluate each checkpoint of RUN: figures against steps."
    ),
    out: Path | None = typer.Option(
        None, help="Output folder. Default: runs/eval/<the model's last two folders>-<data>."
    ),
    limit: int | None = typer.Option(None, min=1, help="Only the first N rows, or items of a benchmark."),
    batch_size: int = typer.Option(16, min=1, help="Answers written at a time."),
    batch_tokens: int = typer.Option(
        8192, min=1, help="Tokens read at a time in mode expected, or by a scalar model."
    ),
    max_new_tokens: int | None = typer.Option(
        None,
        min=1,
        help="Where an answer is cut off. Default: as in training; untrained 32, or 2048 with reasoning.",
    ),
    dtype: str = typer.Option(
        "float32", help="Of the computation: float32, bfloat16, or auto for the fastest."
    ),
    engine: str = typer.Option("transformers", help="What runs a local judge: transformers or vllm."),
    base_url: str | None = typer.Option(
        None, help="Of the endpoint of openai:NAME. Default: OPENAI_BASE_URL, else OpenAI."
    ),
    concurrency: int = typer.Option(16, min=1, help="Questions under way at an endpoint at once."),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with the model."
    ),
    seed: int = typer.Option(0, help="Seed of a vote, and of the resampling behind the intervals."),
    as_json: bool = typer.Option(False, "--json", help="Print metrics.json instead of the table."),
) -> None:
    """Measure a judge on labelled rows or on a benchmark, beside the predictors that cost nothing.

    Writes metrics.json, summary.json and predictions.parquet under --out. A run that was stopped goes on where
    it stopped when the same command is given again.

    Example:

    rmg eval --model runs/judge --data data/test.parquet --train data/train.parquet

    rmg eval --model runs/judge --benchmark rm_bench --path rm_bench/ --mode expected

    rmg eval runs/judge --every-checkpoint --data data/test.parquet --mode expected
    """
    from rm_gallery.core.evaluate.model import (
        Settings,
        evaluate_benchmark,
        evaluate_data,
        evaluate_recorded,
    )
    from rm_gallery.core.judge.subject import Asking, Candidate

    if benchmark == "list":
        _list_benchmarks()
        return
    _check_source(data, benchmark, path)
    source = data or path
    settings = Settings(
        Asking(mode, max_new_tokens, samples, seed),  # type: ignore[arg-type]  # Settings checks the mode
        task=task,
        limit=limit,
        seed=seed,
        progress=lambda total: bar("judging", total, quiet=as_json),
    )

    def candidate(name: str) -> Candidate:
        return Candidate(
            name,
            engine=engine,  # type: ignore[arg-type]  # Candidate checks it
            dtype=dtype,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            base_url=base_url,
            concurrency=concurrency,
            trust_remote_code=trust_remote_code,
        )

    def one(name: str, folder: Path) -> EvalResult:
        judge, how = candidate(name), settings
        trained = run / "config.yaml" if every_checkpoint and run is not None else None
        if task is None and judge.saved is None and trained is not None and trained.is_file():
            # what a run started from carries no task: it is asked what the run trained on, as the checkpoints are
            how = replace(settings, task=str(trained))
        if benchmark is not None and path is not None:
            return evaluate_benchmark(judge, benchmark, path, folder, how, train=train)
        assert data is not None
        return evaluate_data(judge, data, folder, how, train=train)

    short = benchmark or source.name.split(".")[0]  # type: ignore[union-attr]
    try:
        if every_checkpoint:
            if run is None:
                raise ConfigError(
                    "--every-checkpoint needs the folder of a run: rmg eval RUN --every-checkpoint …"
                )
            from rm_gallery.core.evaluate.curve import evaluate_checkpoints

            folder = out or run / "eval" / f"{short}-{mode}"
            made = {"source": source, "benchmark": benchmark, "task": task, "train": train, "limit": limit}
            made |= {"mode": mode, "samples": samples, "dtype": dtype, "seed": seed}
            curve = evaluate_checkpoints(
                run,
                folder,
                one,
                made | {"max_new_tokens": max_new_tokens},
                say=lambda line: typer.echo(line, err=True),
            )
            _print_curve(curve, folder, run, as_json)
            return
        if judgments is not None:
            if benchmark is None or path is None:
                raise ConfigError("--judgments are verdicts on a benchmark: give --benchmark and --path")
            folder = out or Path("runs/eval") / f"{judgments.name.split('.')[0]}-{short}"
            result = evaluate_recorded(benchmark, path, judgments, folder, limit=limit, seed=seed)
        else:
            if model is None:
                raise ConfigError("give --model, or recorded verdicts by --judgments")
            name = "-".join([*Path(model.replace(":", "/")).parts[-2:], short]).strip("/")
            folder = out or Path("runs/eval") / name
            result = one(model, folder)
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


def _check_source(data: Path | None, benchmark: str | None, path: Path | None) -> None:
    if (data is None) == (benchmark is None):
        raise ConfigError("give --data FILE, or --benchmark NAME --path FILE: one of the two")
    if benchmark is not None and path is None:
        raise ConfigError(
            f"--benchmark {benchmark} needs --path: its file or folder, as its publisher has it"
        )
    if path is not None and not path.exists():
        raise ConfigError(f"there is no {path}")


def _list_benchmarks() -> None:
    from rm_gallery.core.evaluate.benchmarks import benchmark_names, get_benchmark

    for name in benchmark_names():
        found = get_benchmark(name)
        tried = "" if found.verified else "  (not tried on the publisher's own file)"
        typer.echo(f"{name:22} {found.source}{tried}")


def _print_curve(curve: list[dict[str, object]], folder: Path, run: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(curve, indent=2))
        return
    from rich.console import Console

    from rm_gallery.core.evaluate.table import print_curve

    print_curve(Console(), curve)
    typer.echo(f"\nWritten to {folder}. Next:  rmg report {run} --out {folder / 'report.html'}")
