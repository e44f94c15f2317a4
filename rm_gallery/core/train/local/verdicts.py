"""Methods `grpo` and `sft`: rows as questions to a judge that writes its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.predictions import task_kind
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.base import ModelJudge
from rm_gallery.core.models.tree import Tree
from rm_gallery.core.models.weights import load_configuration, load_model, load_tokenizer
from rm_gallery.core.tasks import Task
from rm_gallery.core.tasks.saved import save_task
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.local.answers import Written, reasons, with_reasoning, written
from rm_gallery.core.train.local.exact_objective import check_exact
from rm_gallery.core.train.local.heldout import HeldOut
from rm_gallery.core.train.local.job import Job, training_order
from rm_gallery.core.train.local.trainers import Plan, grpo_trainer, in_bfloat16, sft_trainer, within_budget
from rm_gallery.core.train.rows import Example, build_examples, drop_overlong
from rm_gallery.core.train.run_folder import RunFolder


def read_examples(config: TrainConfig) -> tuple[Task[Any], list[Example], list[Example]]:
    """The task and its questions on `data.train` and `data.val`.

    Raises:
        ConfigError: the task or the method does not fit.
        DataError: a file or a row cannot be used; names both.
    """
    task = config.build_task()
    if config.data.val is not None:
        task_kind(task)  # held-out rows can be measured, or this says why not
    if config.method == "exact":
        check_exact(config, task)

    def examples(file: Path | None) -> list[Example]:
        if file is None:
            return []
        rows = load_rows(file)
        try:
            return build_examples(task, rows, limit=config.data.limit, seed=config.train.seed)
        except DataError as error:
            raise DataError(f"{file} does not fit the task {task.name}: {error}") from None

    return task, examples(config.data.train), examples(config.data.val)


def tokens_with_answers(
    config: TrainConfig, prompts: Sequence[int], answers: Sequence[Written], verdicts: Tree
) -> list[int]:
    """Of each training row: the tokens of its prompt and of its answers, as long as they may become, in one pass."""
    if config.method == "sft":
        return [prompt + len(answer.answer) for prompt, answer in zip(prompts, answers, strict=True)]
    n, longest = config.rollout.n, config.rollout.max_response_length
    if config.method == "grpo":
        return [(prompt if config.model.shared_prefix else n * prompt) + n * longest for prompt in prompts]
    tree = len(verdicts.tokens)
    return [prompt + (n * (longest + tree) if reasons(config) else tree) for prompt in prompts]


@dataclass(frozen=True, kw_only=True)
class VerdictJob(Job):
    """The rows as questions with their truths, for methods that train written verdicts."""

    task: Task[Any]
    asker: LocalJudge
    answers: list[Written]
    """Of `sft`: what is written to each training row."""
    train: list[Example]
    val: list[Example]

    @classmethod
    def prepare(cls, config: TrainConfig) -> VerdictJob:
        task, train, val = read_examples(config)
        train, left_out = with_reasoning(config, train)
        tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
        asker = LocalJudge(None, tokenizer, reasoning_model=config.model.reasoning_model)

        def count(messages: list[dict[str, str]]) -> int:
            return len(tokenizer(asker.render(messages), add_special_tokens=False)["input_ids"])

        limit, why = _longest(config, task, asker)
        train, overlong = drop_overlong(train, count, limit, why)
        val, overlong_val = drop_overlong(val, count, limit, why) if val else (val, 0)
        answers: list[Written] = []
        if config.method == "sft":
            train, answers, said = written(config, task, asker, train)
            left_out += said
        order = training_order(config, [task.cluster(example.row) for example in train])
        loads: list[int] = []
        if config.train.micro_batch_tokens:
            prompts = [count(example.messages) for example in train]
            verdicts = asker.verdict_tree(task) if config.method == "exact" else Tree()
            loads = tokens_with_answers(config, prompts, answers, verdicts)
        config, passes = within_budget(config, order, loads, padded=not config.model.shared_prefix)
        notes = [
            f"{out} {kind} prompts are over {why or 'data.max_prompt_length'} and left out"
            for kind, out in (("training", overlong), ("held-out", overlong_val))
            if out
        ]
        return cls(
            config=config,
            tokenizer=tokenizer,
            order=order,
            rows=len(train),
            overlong=overlong,
            overlong_val=overlong_val,
            notes=[*notes, *left_out, *passes],
            task=task,
            asker=asker,
            answers=answers,
            train=train,
            val=val,
        )

    def trainer(self, run: RunFolder, start: str) -> Any:
        config = self.config
        model = load_model(
            start, attention=config.model.attention, trust_remote_code=config.model.trust_remote_code
        )
        plan = Plan(config, self.task, self.tokenizer, self.train, self.order, bool(self.val), run)
        trainer = (
            grpo_trainer(plan, model, self.asker.opening)
            if config.method == "grpo"
            else sft_trainer(plan, model, self.answers)
        )
        if self.val:
            trainer.held_out = self.held_out()
        return trainer

    def held_out(self) -> HeldOut:
        config = self.config
        return HeldOut(
            self.task,
            self.val,
            self.tokenizer,
            max_new_tokens=config.rollout.max_response_length,
            batch_size=config.rollout.eval_batch_size,
            reasoning_model=config.model.reasoning_model,
            autocast=torch.bfloat16 if in_bfloat16(config) else None,
        )

    def save_card(self, folder: Path, trainer: Any) -> None:
        save_task(
            folder,
            self.config.task,
            self.task,
            reasoning_model=self.config.model.reasoning_model,
            max_response_length=self.config.rollout.max_response_length,
        )


def _longest(config: TrainConfig, task: Task[Any], asker: ModelJudge) -> tuple[int, str]:
    """How many tokens a prompt may have, and why where that is not `data.max_prompt_length`: the model's context keeps room
    for a verdict, and for a reasoning where one is asked for."""
    model = load_configuration(config.model.path, trust_remote_code=config.model.trust_remote_code)
    context = getattr(model.get_text_config(), "max_position_embeddings", None)
    wanted = config.data.max_prompt_length
    answer = config.rollout.max_response_length if reasons(config) else asker.verdict_room(task)
    if context is None or wanted <= context - answer:
        return wanted, ""
    return context - answer, f"the model's context of {context} less {answer} for the answer"
