"""The command `rmg`: one small module per command group, heavy imports inside the commands."""

from __future__ import annotations

import sys

import typer

from rm_gallery import __version__
from rm_gallery.cli import (
    data,
    estimate,
    evaluate,
    judge,
    merge,
    models,
    quickstart,
    report,
    serve,
    train,
    verl,
    watch,
)
from rm_gallery.core.errors import RMGalleryError

app = typer.Typer(
    name="rmg",
    help="Turn human judgments into reward models and judges that can be trusted.",
    epilog="Start with:  rmg quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(verl.app, name="verl")
app.command("quickstart")(quickstart.quickstart)
app.command("estimate")(estimate.estimate)
app.command("train")(train.train)
app.command("watch")(watch.watch)
app.command("merge")(merge.merge)
app.command("eval")(evaluate.evaluate)
app.command("report")(report.report)
app.command("judge")(judge.judge)
app.command("serve")(serve.serve)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Run `rmg`; an error meant for the user is one sentence on stderr and exit status 1."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:  # accepted anywhere on the line
        arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        app(arguments)
    except RMGalleryError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
