"""`rmg merge`: shards or adapters as one Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import typer


def merge(
    checkpoint: Path = typer.Argument(help="A run's actor_latest, or one of its checkpoints."),
    out: Path = typer.Argument(help="The folder to write."),
) -> None:
    """Write a checkpoint of verl (FSDP shards) or one with LoRA adapters as a Hugging Face folder.

    Example:  rmg merge checkpoints/1121T0912/actor_latest checkpoints/1121T0912/merged
    """
    from rm_gallery.core.models.require import require

    require("train", "torch", "transformers")
    from rm_gallery.core.train.merge import merge_checkpoint

    merge_checkpoint(checkpoint, out)
    typer.echo(f"{checkpoint} is merged: {out}")
    typer.echo(f"Next:  rmg eval --model {out} --data FILE.parquet")
