"""`rmg report`: one HTML file from evaluations and training runs."""

from __future__ import annotations

from pathlib import Path

import typer

from rm_gallery.core.errors import ConfigError


def report(
    folders: list[Path] = typer.Argument(
        ..., metavar="DIR...", help="Output folders of rmg eval and of rmg train, in the order to show them."
    ),
    out: Path = typer.Option(Path("report.html"), help="The file to write."),
    texts: bool = typer.Option(
        True,
        "--texts/--no-texts",
        help="Show what was judged and written, or only the rows' names: for data that may not be passed on.",
    ),
) -> None:
    """Write one self-contained HTML report of evaluations and training runs.

    Evaluations of the same rows, or of the same items of a benchmark, are compared: the last with the first. A run
    whose checkpoints were evaluated shows their figures against the step.

    Example:

    rmg report runs/eval/base runs/train runs/eval/trained --out report.html
    """
    from dataclasses import replace

    from rm_gallery.core.evaluate.report import read_inputs, write_report

    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: name the file, for example {out / 'report.html'}")
    write_report(out, replace(read_inputs(folders), texts=texts))
    typer.echo(f"Written to {out}. Open it in a browser; it loads nothing from the network.")
