"""Held-out evaluation inside a trainer: the judge's greedy verdicts on `data.val`, by the code of `rmg eval`.

Where the reward is a scoring rule, also the distributions over the verdicts, which it scores.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object

from rm_gallery.core.evaluate import compute_metrics, score_outputs
from rm_gallery.core.evaluate.baselines import constant_reward
from rm_gallery.core.evaluate.predictions import data_source
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.answer import Answer, weighs
from rm_gallery.core.judge.read import read
from rm_gallery.core.tasks import Task
from rm_gallery.core.train.rows import Example


class HeldOut:
    """Judges the held-out rows with the model as it stands.

    Args:
        max_new_tokens: per answer.
        autocast: the dtype of the computation, or None for that of the weights.
    """

    def __init__(
        self,
        task: Task[Any],
        examples: Sequence[Example],
        tokenizer: Any,
        *,
        max_new_tokens: int,
        batch_size: int,
        reasoning_model: bool,
        autocast: torch.dtype | None,
    ) -> None:
        self.task = task
        self.examples = examples
        self.constant = constant_reward(
            task, [e.truth for e in examples], [data_source(e.row) for e in examples]
        )
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.options: dict[str, Any] = {
            "batch_size": batch_size,
            "reasoning_model": reasoning_model,
            "autocast": autocast,
        }

    def __call__(self, model: Any, process: int = 0, processes: int = 1) -> dict[str, float]:
        """The metrics of `rmg eval` by name, without intervals, and what a constant earns. Leaves the model's mode as it was."""
        was_training = model.training
        model.eval()
        try:
            judge = LocalJudge(model, self.tokenizer, **self.options)
            # each process judges its share, and all of them see every answer
            share = range(process, len(self.examples), processes)
            answers = self._answers(judge, [self.examples[i].messages for i in share])
            by_row = dict(gather_object(list(zip(share, answers, strict=True))))
        finally:
            model.train(was_training)
        found = [by_row[i] for i in range(len(self.examples))]
        metrics = compute_metrics(score_outputs(self.task, [e.row for e in self.examples], found))
        return {**metrics, "reward/best_constant": self.constant}

    def _answers(self, judge: LocalJudge, conversations: Sequence[list[dict[str, str]]]) -> list[Answer]:
        texts = judge.generate(conversations, max_new_tokens=self.max_new_tokens)
        written = [read(self.task, text) for text in texts]
        if not self.task.reward_config.is_rule or not weighs(self.task, judge):
            return written
        weighed = judge.answer(self.task, conversations, mode="expected", max_new_tokens=self.max_new_tokens)
        return [
            replace(answer, probabilities=other.probabilities, mass=other.mass)
            for answer, other in zip(written, weighed, strict=True)
        ]


class HeldOutMixin:
    """Replaces a Trainer's `evaluate` by `held_out`; its arguments say which figure makes the best checkpoint."""

    held_out: Callable[[Any, int, int], dict[str, float]] | None = None
    resumed_at: int | None = None

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        trainer: Any = self
        step = trainer.state.global_step
        if self.held_out is None or (self.resumed_at is not None and step <= self.resumed_at):
            return {}  # the resumed run has this point already
        started = time.perf_counter()
        metrics = self.held_out(
            trainer.accelerator.unwrap_model(trainer.model),
            trainer.accelerator.process_index,
            trainer.accelerator.num_processes,
        )
        logs = {f"eval_{name}": value for name, value in metrics.items()}
        logs["eval_seconds"] = time.perf_counter() - started
        if step and _improved(logs[trainer.args.metric_for_best_model], trainer):
            trainer.control.should_save = True  # a best that was not saved could not be linked
        # past the trainer's own `log`, which would take the training metrics gathered so far for held-out ones
        trainer.callback_handler.on_log(trainer.args, trainer.state, trainer.control, dict(logs))
        trainer.state.log_history.append({**logs, "step": step})
        trainer.control = trainer.callback_handler.on_evaluate(
            trainer.args, trainer.state, trainer.control, logs
        )
        return logs

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL's card describes its trainer; ours is the card `rm_gallery.json`."""


def _improved(value: float, trainer: Any) -> bool:
    best = trainer.state.best_metric
    if best is None or math.isnan(value):
        return not math.isnan(value)
    return bool(value > best if trainer.args.greater_is_better else value < best)
