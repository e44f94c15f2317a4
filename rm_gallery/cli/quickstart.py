"""`rmg quickstart`: the whole loop on the shipped sample."""

from __future__ import annotations

from pathlib import Path

import typer

from rm_gallery.cli.progress import bar


def quickstart(
    out: Path = typer.Option(Path("runs/quickstart"), help="Folder for everything that is written."),
    seed: int = typer.Option(0, min=0, help="Of training and of the intervals."),
    set_: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Override a key of both trainings."
    ),
) -> None:
    """Train a small language model to judge answers, and see how good it is. Ten to fifteen minutes on two cores.

    Needs no network and no accelerator. Writes report.html and summary.json under --out.

    Example:  rmg quickstart --out runs/quickstart
    """
    from rich.console import Console

    from rm_gallery.core.evaluate.table import print_result
    from rm_gallery.gallery.quickstart import run_quickstart

    done = run_quickstart(
        out,
        seed=seed,
        overrides=tuple(set_),
        say=typer.echo,
        progress=lambda total: bar("      judging", total),
    )
    typer.echo("")
    print_result(Console(), done.after)
    total = sum(done.summary["seconds"].values())
    typer.echo("")
    typer.echo(f"{total / 60:.1f} minutes, {done.summary['peak_memory_gib']:.1f} GiB at most.")
    typer.echo(f"Report:  {out / 'report.html'}      figures:  {out / 'summary.json'}")
    typer.echo(f"Next:  rmg judge --model {out / 'grpo' / 'actor_latest'} --query '…' --response '…'")
