"""`rmg watch`: a run as it trains, in the terminal."""

from __future__ import annotations

from pathlib import Path

import typer


def watch(
    run: Path = typer.Argument(metavar="RUN", help="The folder of a run of rmg train, of either engine."),
    once: bool = typer.Option(
        False, "--once", help="Print it once and end; so too where there is no terminal."
    ),
    every: float = typer.Option(2.0, min=0.1, help="Seconds between two looks at the folder."),
) -> None:
    """Show a run's progress, figures, curves and checkpoints until it is finished.

    Only the run's folder is read: it may train in another terminal or on another machine. Ctrl-C ends the view,
    not the run.

    Example:  rmg watch checkpoints/1120T0912
    """
    import sys
    import time

    from rich.console import Console
    from rich.live import Live

    from rm_gallery.core.train.watch import read_snapshot
    from rm_gallery.core.train.watch_view import view

    console = Console(highlight=False)
    snapshot = read_snapshot(run)
    if once or not sys.stdout.isatty():
        console.print(view(snapshot, console.width))
    else:
        try:
            with Live(view(snapshot, *console.size), console=console, auto_refresh=False) as live:
                while snapshot.state != "finished":
                    time.sleep(every)
                    snapshot = read_snapshot(run)
                    live.update(view(snapshot, *console.size), refresh=True)
        except KeyboardInterrupt:
            return
    if snapshot.state == "finished":
        typer.echo(f"Next:  {snapshot.next_command}")
