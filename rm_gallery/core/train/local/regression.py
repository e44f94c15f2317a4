"""Method `regression`: one head with a number for each attribute, by mean squared error.

As HelpSteer2's authors train it (Wang et al. 2024, arXiv 2406.08673; NeMo-Aligner's regression reward model): the
labels as they are, the mean over those that are there, and afterwards a weighted sum as the one number for ranking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import torch
from torch import Tensor
from transformers import Trainer
from trl.trainer.utils import disable_dropout_in_model

from rm_gallery.core.data.samples import Sample
from rm_gallery.core.evaluate.benchmarks.aggregate import Figures
from rm_gallery.core.evaluate.benchmarks.ask import scored
from rm_gallery.core.evaluate.benchmarks.labelled import accuracies, pairs_of_ratings
from rm_gallery.core.judge.answer import Conversation
from rm_gallery.core.judge.scalar_card import ScalarCard
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.local.heldout import HeldOutMixin
from rm_gallery.core.train.local.scalar import (
    ScalarJob,
    columns,
    held_out_scores,
    load_head,
    padded,
    prepare_forward,
    text_of,
)
from rm_gallery.core.train.ratings import RatedResponse, read_ratings
from rm_gallery.core.train.run_folder import RunFolder

MISSING = -100
"""A label that is not there: transformers counts all others of a batch."""


@dataclass(frozen=True, kw_only=True)
class RegressionJob(ScalarJob[RatedResponse]):
    """Rated responses, whose labels shall be predicted."""

    unit: ClassVar[str] = "rated responses"
    best: ClassVar[tuple[str, bool]] = ("eval_loss", False)

    @staticmethod
    def _read(path: Path, config: TrainConfig) -> tuple[list[RatedResponse], list[str]]:
        names = tuple(config.regression.attributes)
        return read_ratings(path, names, limit=config.data.limit, seed=config.train.seed)

    @staticmethod
    def _conversations(row: RatedResponse) -> Sequence[Conversation]:
        return [row.conversation]

    def trainer(self, run: RunFolder, start: str) -> JudgeRegressionTrainer:
        attributes = self.config.regression.attributes
        dataset = datasets.Dataset.from_dict(
            {
                **columns([text for i in self.order for text in self.texts[i]]),
                "labels": [_labels(self.train[i]) for i in self.order],
            }
        )
        model = load_head(self.config, start, self.tokenizer, attributes)
        disable_dropout_in_model(model)  # as TRL does it for Bradley-Terry, and NeMo-Aligner's recipe
        trainer = JudgeRegressionTrainer(
            model,
            args=self.arguments(run, bool(self.val)),
            train_dataset=dataset,
            eval_dataset=dataset.select([0]) if self.val else None,
            processing_class=self.tokenizer,
            data_collator=Collator(self.tokenizer),
            compute_loss_func=masked_mse,
        )
        trainer.options = prepare_forward(trainer, self.config.model.shared_prefix)
        if self.val:
            trainer.held_out = self._held_out()
        return trainer

    def save_card(self, folder: Path, trainer: Any) -> None:
        ScalarCard(
            method="regression",
            data=str(self.config.data.train),
            examples=self.rows,
            attributes=self.config.regression.attributes,
        ).save(folder)

    def _held_out(self) -> Callable[..., dict[str, float]]:
        attributes = self.config.regression.attributes
        labels = torch.tensor([_labels(each) for each in self.val], dtype=torch.float64)
        known = labels != MISSING
        items = pairs_of_ratings(Sample.from_row(each.row) for each in self.val)

        def measure(model: Any, process: int = 0, processes: int = 1) -> dict[str, float]:
            answers = held_out_scores(
                model,
                self.tokenizer,
                [each.conversation for each in self.val],
                attributes=attributes,
                autocast=self.autocast,
                shared=self.config.model.shared_prefix,
                process=process,
                processes=processes,
            )
            found = torch.tensor([list(json.loads(answer.text).values()) for answer in answers]).double()
            off = torch.where(known, found - labels, torch.nan)
            score = {(e.input, e.response): a.score for e, a in zip(self.val, answers, strict=True)}
            judged = [scored(item, [score[item.input, r] for r in item.responses]) for item in items]
            right = accuracies(Figures(items, judged))
            return {
                "loss": float(off.square().nanmean()),
                "mae": float(off.abs().nanmean()),
                **{f"mae/{name}": float(off[:, i].abs().nanmean()) for i, name in enumerate(attributes)},
                "accuracy_untied": sum(r for r, _ in right) / max(1.0, sum(n for _, n in right))
                if any(n for _, n in right)
                else float("nan"),
            }

        return measure


class Collator:
    """Rows of the dataset as one batch."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        labels = torch.tensor([row["labels"] for row in rows], dtype=torch.float32)
        return {**padded(self.tokenizer, [text_of(row) for row in rows]), "labels": labels}


class JudgeRegressionTrainer(HeldOutMixin, Trainer):
    """transformers' trainer with our held-out evaluation."""

    options: Mapping[str, Any] = {}
    """What the model is told beside its inputs."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, {**inputs, **self.options}, *args, **kwargs)


def masked_mse(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Mean squared error over the labels that are there: (B, attributes), `MISSING` where one is not.

    `num_items_in_batch` is their number in the whole update, so that micro-batches add up to its mean.
    """
    known = labels != MISSING
    squares = (outputs.logits.float() - labels)[known].square().sum()
    return squares / (known.sum() if num_items_in_batch is None else num_items_in_batch)


def _labels(rated: RatedResponse) -> list[float]:
    return [MISSING if value is None else value for value in rated.labels]
