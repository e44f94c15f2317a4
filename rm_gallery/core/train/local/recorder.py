"""`Recorder`: what a run writes while it trains, under the names of the metrics of both engines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from rm_gallery.core.memory import peak_memory_gib
from rm_gallery.core.train.progress import StepProgress, figures
from rm_gallery.core.train.run_folder import RunFolder

logger = logging.getLogger("rm_gallery.train")

# TRL's name → ours. Names that are not here stay out: the same few figures from both engines.
_NAMES = {
    "loss": "loss",
    "reward": "reward/mean",
    "reward_std": "reward/std",
    "accuracy": "accuracy",
    "mae": "mae",
    "parse_rate": "parse_rate",
    "kl": "kl_loss",
    "entropy": "entropy",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "clip_ratio/region_mean": "clip_ratio",
    "frac_reward_zero_std": "reward/zero_std_groups",
    "completions/mean_length": "response_length/mean",
    "completions/clipped_ratio": "response_length/clip_ratio",
    "mean_token_accuracy": "token_accuracy",
    "accuracy_untied": "accuracy_untied",
    "reward_gap": "reward/gap",
    "score_mean": "score/mean",
    "tie_parameter": "tie_parameter",
}


class Recorder(TrainerCallback):
    """Writes `metrics.jsonl` and the log, shows progress, and keeps `actor_latest` and `best` right.

    Args:
        save_card: writes `rm_gallery.json` into a checkpoint.
        updates_per_step: optimizer updates in one step (one batch of prompts).
        keep_checkpoints: how many to keep, beside the best; None keeps all.
        describe: what to call this in the progress bar.
    """

    def __init__(
        self,
        run: RunFolder,
        save_card: Callable[[Path], None],
        *,
        updates_per_step: int,
        keep_checkpoints: int | None,
        describe: str,
    ) -> None:
        self.run = run
        self.save_card = save_card
        self.updates_per_step = updates_per_step
        self.keep_checkpoints = keep_checkpoints
        self.progress = StepProgress(describe)
        self.trainer: Any = None
        """Set by the engine: the callback protocol does not hand it over."""
        self._started = 0.0
        self._tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.progress.start(
            state.max_steps // self.updates_per_step, state.global_step // self.updates_per_step
        )
        self._tokens = state.num_input_tokens_seen
        self._started = time.perf_counter()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Rename in place, before the trackers' callbacks see the figures; then write them down."""
        if not logs or not state.is_world_process_zero or "train_loss" in logs:  # the summary at the end
            return
        step = state.global_step // self.updates_per_step
        held_out = any(key.startswith("eval_") for key in logs)
        record = _held_out(logs) if held_out else {**_training(logs), **self._timing(state)}
        if held_out:
            logs.clear()
            logs.update({f"eval_{key}": value for key, value in record.items()})
        else:
            logs.clear()
            logs.update(record)
        line = {"step": step, "split": "val" if held_out else "train", **record}
        self.run.append(line)
        logger.info("step %d%s: %s", step, " held out" if held_out else "", figures(line))
        self.progress.show(line)
        if held_out:
            self._started += record["seconds"]  # not part of the step's time

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = self.run.path / f"checkpoint-{state.global_step}"
        # written last: a checkpoint without its card is incomplete
        self.save_card(folder)
        self.run.link(self.run.latest, folder)
        best = state.best_model_checkpoint
        if best:
            self.run.link(self.run.best, Path(best))
        # only now: transformers would delete the old ones before the new one is complete
        rotate_checkpoints(str(self.run.path), self.keep_checkpoints, best)
        self._started = time.perf_counter()  # saving is not part of the next step's time

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stop the progress bar; safe to call twice."""
        self.progress.close()

    def _timing(self, state: Any) -> dict[str, float]:
        now = time.perf_counter()
        step_seconds, self._started = now - self._started, now
        phases: dict[str, float] = getattr(self.trainer, "seconds", {})
        timing = {f"timing_s/{phase}": seconds for phase, seconds in phases.items()}
        if phases:
            timing["timing_s/update"] = max(0.0, step_seconds - sum(phases.values()))
            phases.clear()
        tokens = state.num_input_tokens_seen - self._tokens
        self._tokens = state.num_input_tokens_seen
        rate = {"tokens_per_second": tokens / step_seconds} if tokens > 0 else {}
        return {**timing, "timing_s/step": step_seconds, **rate, "memory/peak_gib": peak_memory_gib()}


def _training(logs: dict[str, Any]) -> dict[str, Any]:
    known = {ours: _number(logs[theirs]) for theirs, ours in _NAMES.items() if theirs in logs}
    # of several dimensions each one's reward has its name in both
    return known | {name: _number(value) for name, value in logs.items() if name.startswith("reward/")}


def _held_out(logs: dict[str, Any]) -> dict[str, Any]:
    plain = {key.removeprefix("eval_"): value for key, value in logs.items()}
    return {"reward/mean" if key == "reward" else key: _number(value) for key, value in plain.items()}


def _number(value: Any) -> float | None:
    """NaN is not JSON: an undefined figure is null."""
    return None if value is None or not math.isfinite(value) else float(value)
