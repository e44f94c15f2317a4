"""`rmg judge`: ask a judge about one answer, or which of two is better."""

from __future__ import annotations

import json

import typer

from rm_gallery.cli.options import TASKS


def judge(
    model: str = typer.Option(..., help="Folder of the judge."),
    query: str = typer.Option(..., help="What was asked."),
    response: str = typer.Option(..., help="The answer to judge (the first, A, of two)."),
    response_b: str | None = typer.Option(None, help="A second answer, B, to compare it with."),
    task: str | None = typer.Option(
        None, help=f"{TASKS}. Default: what the saved judge was trained on, else by the number of responses."
    ),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with the model."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Ask a judge about one answer: its written verdict, and its probability of every legal verdict.

    Example:  rmg judge --model runs/quickstart/grpo/actor_latest --query "What is 2 + 3?" --response "It is 5."
    """
    from rm_gallery.core.judge.single import ask, describe

    judgment = ask(model, query, response, response_b, task=task, trust_remote_code=trust_remote_code)
    typer.echo(
        json.dumps(judgment.to_dict(), ensure_ascii=False, indent=2) if as_json else describe(judgment)
    )
