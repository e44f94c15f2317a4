"""What a checkpoint of verl gets beside its shards: the judge's card, and the link `actor_latest`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from rm_gallery.core.tasks.saved import CARD
from rm_gallery.core.train.run_folder import RunFolder


class JudgeCheckpoint(CheckpointCallback):
    """Named by `trainer.checkpoint_callback_class`; runs in verl's driver after each complete save."""

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any
    ) -> None:
        actor = Path(checkpoint_dir).resolve() / "actor"
        run = RunFolder(actor.parents[1])
        shutil.copyfile(run.path / CARD, actor / CARD)
        run.link(run.latest, actor)
        # verl forgets on a resume what it saved before, and would keep it for good
        keep = trainer.config.trainer.max_actor_ckpt_to_keep
        saved = sorted(
            run.path.glob("global_step_*/actor"), key=lambda each: int(each.parent.name.split("_")[-1])
        )
        for old in saved[:-keep] if keep else ():
            shutil.rmtree(old, ignore_errors=True)
