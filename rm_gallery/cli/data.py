"""`rmg data`."""

import typer

app = typer.Typer(no_args_is_help=True)


@app.command()
def todo() -> None:
    """(being written)"""
