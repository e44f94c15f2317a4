"""`rmg serve`: a judge or a scalar model as an HTTP service, with a page to try it."""

from __future__ import annotations

import os

import typer

from rm_gallery.cli.options import TASKS
from rm_gallery.core.errors import ConfigError

KEY = "RMG_API_KEY"


def serve(
    model: str = typer.Option(
        ...,
        help="A folder or hub id of a judge or of a scalar (Bradley-Terry) model; openai:NAME for one behind an endpoint.",
    ),
    host: str = typer.Option("127.0.0.1", help="Where to listen; anything but the loopback needs a key."),
    port: int = typer.Option(8000, min=0, max=65535, help="0 takes a free one."),
    task: str | None = typer.Option(None, help=f"{TASKS}. Default: what the saved judge was trained on."),
    mode: str | None = typer.Option(
        None,
        help="expected (the verdict's exact distribution) or greedy (written), where a request names none. Default: expected where the judge can.",
    ),
    dtype: str = typer.Option(
        "float32", help="Of the computation: float32, bfloat16, or auto for the fastest."
    ),
    engine: str = typer.Option("transformers", help="What runs a local judge: transformers or vllm."),
    max_batch: int = typer.Option(64, min=1, help="Questions that the model is given at once."),
    max_queue: int = typer.Option(4096, min=1, help="Questions that may wait; beyond them 429."),
    max_items: int = typer.Option(
        1024, min=1, help="Questions that one request may come to; beyond them 413."
    ),
    max_body: float = typer.Option(8, min=0.001, help="MiB of a request; beyond them 413."),
    missing_reward: float | None = typer.Option(
        None, help="What OpenRLHF is given for a response without a score. Default: its request fails."
    ),
    without_key: bool = typer.Option(
        False, "--without-key", help="Listen beyond the loopback though there is no key: anyone may ask."
    ),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with the model."
    ),
) -> None:
    """Serve a judge or a scalar model over HTTP, with a page at / to try it.

    Clients must know the key that stands in the environment as RMG_API_KEY, where there is one. SIGTERM and Ctrl-C
    stop the service once it has answered what it accepted.

    Example:  rmg serve --model runs/judge --port 8000
    """
    if mode not in (None, "expected", "greedy"):
        raise ConfigError(f"--mode is {mode!r}; a service asks in mode expected or greedy")
    from rm_gallery.core.judge.subject import Candidate
    from rm_gallery.core.serve import Settings
    from rm_gallery.core.serve import serve as run
    from rm_gallery.core.serve.run import check_exposure, is_loopback, listen

    key = os.environ.get(KEY)
    settings = Settings(
        mode=mode,  # type: ignore[arg-type]  # checked above
        max_batch=max_batch,
        max_queue=max_queue,
        max_items=max_items,
        max_body=int(max_body * 2**20),
        missing_reward=missing_reward,
        api_key=None if key is None else key.strip(),
    )
    candidate = Candidate(model, engine, dtype, trust_remote_code=trust_remote_code)  # type: ignore[arg-type]
    listening = listen(host, port)
    settings = check_exposure(listening, settings, without_key=without_key)
    asked = candidate.task(task)
    typer.echo(f"loading {model} …", err=True)
    subject = candidate.open()
    address, taken = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address

    def started() -> None:
        who = "this machine alone" if is_loopback(address) else "anyone who reaches it"
        who = f"whoever knows {KEY}" if settings.api_key else who
        typer.echo(f"serving {model} to {who}; Ctrl-C stops it\nhttp://{shown}:{taken}/")

    run(subject, asked, settings, listening=listening, started=started)
    typer.echo("stopped; all that was accepted is answered", err=True)
