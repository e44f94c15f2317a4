"""`rmg verl`: check a command line for verl before it is started."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rm_gallery.core.train.verl.check import Report

app = typer.Typer(no_args_is_help=True, help="Check command lines for verl.")


@app.callback()
def _group() -> None:
    """Check command lines for verl."""


@app.command(
    epilog="Example:  rmg verl check -- algorithm.adv_estimator=grpo custom_reward_function.path=reward_fn.py"
)
def check(
    overrides: list[str] = typer.Argument(
        ..., metavar="OVERRIDES…", help="What follows `verl.trainer.main_ppo`, or the whole command line."
    ),
    context: int | None = typer.Option(None, min=1, help="The model's context in tokens, to check lengths."),
    files: bool = typer.Option(False, "--files", help="Look for the files that it names, from this folder."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Say which keys the installed verl ignores or refuses, what to set instead, and what else would go wrong.

    Understands command lines written for verl 0.2 to 0.5. Exit status 1 where anything was found.
    """
    from rm_gallery.core.train.verl.check import explain

    report = explain(overrides, context=context, check_files=files)
    if as_json:
        import json

        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    changed = [finding for finding in report.findings if finding.status != "ok"]
    typer.echo(f"{len(report.findings)} overrides, {len(changed)} of them refused or without effect")
    if changed:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for finding in changed:  # one below the other: two keys do not fit beside each other
            table.add_row(finding.status, Text(finding.key, style="bold"))
            if finding.replacement:
                table.add_row("", Text("-> " + " ".join(finding.replacement)))
            elif finding.status != "refused":  # what verl never knew was meant for something
                table.add_row("", "-> leave it out")
            table.add_row("", Text(finding.reason, style="dim"))
        typer.echo()
        Console().print(table)
    typer.echo()
    for finding in report.findings:
        if finding.status == "ok" and finding.reason:
            typer.echo(f"note: {finding.key}: {finding.reason}")
    for sentence in report.problems:
        typer.echo(f"problem: {sentence}")
    if changed:
        typer.echo("\nwith the replacements made:\n")
        words = ["python3 -m verl.trainer.main_ppo", *map(_quoted, report.corrected)]
        typer.echo(" \\\n  ".join(words) + "\n")
    if report.problems:
        typer.echo("next: change what the problems name, and run  rmg verl check -- OVERRIDES…  again")
    elif changed:
        typer.echo("next: start the command above")
    else:
        typer.echo("next: start it as it stands")


def _quoted(override: str) -> str:
    """For a shell; readable where the value itself has single quotes."""
    if "'" in override and not set(override) & set('"$`\\!'):
        return f'"{override}"'
    return shlex.quote(override)
