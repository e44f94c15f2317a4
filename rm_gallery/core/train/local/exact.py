"""Method `exact`: the expected reward and its gradient, from the model's own probabilities of all legal verdicts.

One forward and one backward pass over each prompt with the tree of its verdicts (`core/models/forest.py`), in place of
sampling, scoring and updating on `rollout.n` answers. What is maximised: `exact_objective.py`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from peft import get_peft_model
from torch import Tensor
from transformers import Trainer, TrainingArguments
from trl.trainer.utils import disable_dropout_in_model

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.forest import fits_forest, plant
from rm_gallery.core.models.prompts import distinct
from rm_gallery.core.models.scoring import extend_forward, logit_transforms, verdict_log_probs
from rm_gallery.core.models.tree import Tree
from rm_gallery.core.models.weights import inner_model, load_model, store_for_autocast
from rm_gallery.core.rewards import log_score
from rm_gallery.core.train.local.answers import reasons
from rm_gallery.core.train.local.exact_objective import Objective
from rm_gallery.core.train.local.heldout import HeldOutMixin
from rm_gallery.core.train.local.phases import PhasesMixin
from rm_gallery.core.train.local.sharing import backward_in_forests
from rm_gallery.core.train.local.trainers import common_arguments, lora_config, micro_batch, world_size
from rm_gallery.core.train.local.verdicts import VerdictJob
from rm_gallery.core.train.run_folder import RunFolder

logger = logging.getLogger("rm_gallery.train")

_NO_TREE = Tree()
FAINT = 0.01
"""Of the legal verdicts' mass: with less, the expected reward hardly moves."""


@dataclass(frozen=True, kw_only=True)
class ExactJob(VerdictJob):
    """The rows as questions, each with the position of its label among the legal verdicts."""

    def trainer(self, run: RunFolder, start: str) -> ExactTrainer:
        config, task = self.config, self.task
        if self.asker.opening and not reasons(config):
            raise ConfigError(
                f"the chat template of {config.model.path} begins every answer with <think>, and method exact would take "
                "the verdict without a reasoning: set model.reasoning_model to true"
            )
        model = self._model(start)
        check_model(model, config.model.path)
        texts = [self.asker.render(self.train[i].messages) for i in self.order]
        verdicts = list(task.verdicts())
        dataset = datasets.Dataset.from_dict(
            {
                "input_ids": self.tokenizer(texts, add_special_tokens=False)["input_ids"],
                "truth": [verdicts.index(self.train[i].truth) for i in self.order],
            }
        )
        micro = micro_batch(config)
        common = common_arguments(config, run, bool(self.val))
        common.pop("trust_remote_code")  # TRL's own: the model is loaded already
        arguments = TrainingArguments(
            **common,
            per_device_train_batch_size=micro,
            per_device_eval_batch_size=1,
            gradient_accumulation_steps=config.mini_batch_size // (micro * world_size()),
            train_sampling_strategy="sequential",  # the order is ours
            include_num_input_tokens_seen="non_padding",
        )
        lora = lora_config(config)
        # adapters switched off are the starting model; whole weights need a second one
        apart = config.loss.kl_coef > 0 and lora is None
        reference = self._model(start).requires_grad_(False).eval() if apart else None
        if lora is not None:
            model = get_peft_model(model, lora)
            if config.model.gradient_checkpointing:
                model.enable_input_require_grads()
        trainer = self._make(
            model,
            args=arguments,
            train_dataset=dataset,
            eval_dataset=dataset.select([0]) if self.val else None,
            processing_class=self.tokenizer,
            data_collator=Collator(self.tokenizer),
            objective=Objective.of(task, config.loss.kl_coef),
            reference=reference,
        )
        if self.val:
            trainer.held_out = self.held_out()
        return trainer

    def _make(self, model: Any, **common: Any) -> ExactTrainer:
        return ExactTrainer(model, tree=self.asker.verdict_tree(self.task), **common)

    def _model(self, start: str) -> Any:
        options = self.config.model
        model = load_model(start, attention=options.attention, trust_remote_code=options.trust_remote_code)
        disable_dropout_in_model(model)  # it would draw a model, and the expectation is that of the whole one
        return model


def check_model(model: Any, name: str) -> None:
    """Refuse a model whose verdicts cannot be weighed all at once. Raises `ConfigError`."""
    config = model.config.get_text_config()
    if not fits_forest(model):
        why = "its attention is not the plain one in every layer (a sliding window, or soft capping)"
    elif changed := logit_transforms(model):
        why = f"it changes its logits after its head ({', '.join(changed)})"
    elif getattr(config, "output_router_logits", False):
        why = "it is a mixture of experts that trains its router too"
    else:
        return
    raise ConfigError(
        f"{name} cannot be trained by method exact: {why}; use grpo with model.shared_prefix: false"
    )


class Collator:
    """Rows of the dataset as one batch."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        padded = self.tokenizer.pad([{"input_ids": row["input_ids"]} for row in rows], return_tensors="pt")
        return {**padded, "truth": torch.tensor([row["truth"] for row in rows])}


class ExactTrainer(PhasesMixin, HeldOutMixin, Trainer):
    """transformers' trainer with our loss, held-out evaluation and figures.

    Args:
        tree: the verdicts' texts, in the order of the objective's tables.
        reference: the starting model, frozen; None where adapters can be switched off, or without a KL term.
    """

    advice = "start from a model that keeps to the format (method sft), or use reward.name log_score"

    def __init__(
        self, *args: Any, objective: Objective, tree: Tree = _NO_TREE, reference: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(
                "method exact keeps the model whole on every GPU: use plain data parallel, or LoRA"
            )
        self.tree = tree
        self.objective = objective.to(self.args.device)
        self.reference = None if reference is None else reference.to(self.args.device)
        if self.reference is not None and self.args.bf16:
            store_for_autocast(self.reference, torch.bfloat16)
        self._figures: dict[str, list[float]] = defaultdict(list)
        self._warned = False
        for model in (self.accelerator.unwrap_model(self.model), self.reference):
            if model is not None:
                self._extend(inner_model(model))
        backward_in_forests(self)

    def _extend(self, model: Any) -> None:
        """Let the model be asked what the loss is made of."""
        extend_forward(model, "forest", verdict_log_probs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, figures = self._loss(model, inputs)
        # micro-batches are of one size, so that the mean of their means is that of the step
        names = sorted(figures)  # in one order in all processes
        means = self.accelerator.gather(torch.stack([figures[name] for name in names])[None]).mean(0)
        for name, value in zip(names, means.tolist(), strict=True):
            self._figures[name].append(value)
        return (loss, None) if return_outputs else loss

    def _loss(self, model: Any, inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        prompts, places = distinct(inputs["input_ids"], inputs["attention_mask"])
        rows = torch.tensor(places, device=inputs["input_ids"].device)
        forest = plant(prompts, self.tree, device=rows.device)
        with self.accelerator.autocast():
            log_probs = model(forest=forest, tree=self.tree).index_select(0, rows)
        reference = self._reference(model, forest=forest, tree=self.tree)
        return self.objective(
            log_probs, inputs["truth"], None if reference is None else reference.index_select(0, rows)
        )

    def _reference(self, model: Any, **asked: Any) -> Any:
        """What the starting model says to the same; None without a KL term."""
        if not self.objective.kl_coef:
            return None
        with self.timed("log_probs"), torch.no_grad(), self.accelerator.autocast():
            if self.reference is not None:
                return self.reference(**asked)
            adapted = self.accelerator.unwrap_model(model)
            with adapted.disable_adapter():
                return adapted(**asked)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        logs.update({name: sum(values) / len(values) for name, values in self._figures.items()})
        self._figures.clear()
        if not self._warned and logs.get("parse_rate", 1.0) < FAINT and self.objective.rule is not log_score:
            self._warned = True
            logger.warning(
                "the legal verdicts have a probability of %.1e together, and the gradient is as small: %s",
                logs["parse_rate"],
                self.advice,
            )
        super().log(logs, start_time)
