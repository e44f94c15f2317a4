"""Method `bradley_terry`: TRL's RewardTrainer with our likelihoods (`preference_loss.py`) and held-out evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import torch
from torch import Tensor
from trl import RewardTrainer

from rm_gallery.core.errors import DataError
from rm_gallery.core.judge.answer import Conversation
from rm_gallery.core.judge.scalar_card import ScalarCard, load_scalar_card
from rm_gallery.core.train.config import BradleyTerrySection, TrainConfig
from rm_gallery.core.train.local.heldout import HeldOutMixin
from rm_gallery.core.train.local.preference_loss import Ties
from rm_gallery.core.train.local.scalar import (
    ScalarJob,
    columns,
    held_out_scores,
    load_head,
    padded,
    prepare_forward,
    text_of,
)
from rm_gallery.core.train.pairs import PreferencePair, read_pairs
from rm_gallery.core.train.ratings import spoken
from rm_gallery.core.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class BradleyTerryJob(ScalarJob[PreferencePair]):
    """Pairs of responses, of which the chosen one shall score higher; the texts are in this order."""

    unit: ClassVar[str] = "pairs"
    best: ClassVar[tuple[str, bool]] = ("eval_accuracy_untied", True)

    @staticmethod
    def _read(path: Path, config: TrainConfig) -> tuple[list[PreferencePair], list[str]]:
        return read_pairs(path, config.bradley_terry, limit=config.data.limit, seed=config.train.seed)

    @staticmethod
    def _conversations(row: PreferencePair) -> Sequence[Conversation]:
        return row.conversations

    @staticmethod
    def _check(config: TrainConfig, train: Sequence[PreferencePair]) -> None:
        if all(pair.tied for pair in train):
            raise DataError(
                f"{config.data.train}: of the pairs that are left, {len(train)}, all are ties: raise "
                "data.limit or data.max_prompt_length"
            )
        _ties(config.bradley_terry, train)  # a parameter that cannot be learned is known now

    def trainer(self, run: RunFolder, start: str) -> JudgeRewardTrainer:
        section = self.config.bradley_terry
        ties = _ties(section, self.train)
        chosen, rejected = zip(*(self.texts[i] for i in self.order), strict=True)
        dataset = datasets.Dataset.from_dict(
            {
                # TRL takes a dataset with the columns chosen_ids and rejected_ids for one that is encoded
                **columns(chosen, "chosen_"),
                **columns(rejected, "rejected_"),
                "tied": [self.train[i].tied for i in self.order],
                "margin": margins(section, [self.train[i] for i in self.order]),
            }
        )
        trainer = JudgeRewardTrainer(
            load_head(self.config, start, self.tokenizer, {}),
            args=self.arguments(run, bool(self.val)),
            train_dataset=dataset,
            eval_dataset=dataset.select([0]) if self.val else None,
            processing_class=self.tokenizer,
            data_collator=Collator(self.tokenizer),
            ties=ties,
            center_coef=section.center_coef,
            shared=self.config.model.shared_prefix,
        )
        if self.val:
            trainer.held_out = self._held_out(ties)
        return trainer

    def save_card(self, folder: Path, trainer: JudgeRewardTrainer) -> None:
        ties = trainer.ties
        ScalarCard(
            method="bradley_terry",
            data=str(self.config.data.train),
            examples=self.rows,
            ties={} if ties.value is None else {"likelihood": ties.kind, "parameter": ties.value},
        ).save(folder)

    def _held_out(self, ties: Ties) -> Callable[..., dict[str, float]]:
        section = self.config.bradley_terry
        tied = torch.tensor([pair.tied for pair in self.val])
        margin = torch.tensor(margins(section, self.val))
        # a response that stands in several pairs is scored once
        sides = [(pair.input, text) for pair in self.val for text in (pair.chosen, pair.rejected)]
        place = {side: i for i, side in enumerate(dict.fromkeys(sides))}
        conversations = [spoken(*side) for side in place]

        def measure(model: Any, process: int = 0, processes: int = 1) -> dict[str, float]:
            answers = held_out_scores(
                model,
                self.tokenizer,
                conversations,
                attributes={},
                autocast=self.autocast,
                shared=self.config.model.shared_prefix,
                process=process,
                processes=processes,
            )
            scores = torch.tensor([answers[place[side]].score for side in sides]).view(-1, 2)
            gap = scores[:, 0] - scores[:, 1]
            with torch.no_grad():
                loss = ties.loss(*(part.to(ties.raw.device) for part in (gap, tied, margin)))
            untied = gap[~tied]
            return {
                "loss": float(loss.mean()),
                "accuracy_untied": float((untied > 0).double().mean()),
                "reward/gap": float(untied.mean()),
                "score/mean": float(scores.mean()),
            }

        return measure


class Collator:
    """Rows of the dataset as one batch: the chosen texts, then the rejected ones."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        texts = [text_of(row, side) for side in ("chosen_", "rejected_") for row in rows]
        return {
            **padded(self.tokenizer, texts),
            "tied": torch.tensor([row["tied"] for row in rows]),
            "margin": torch.tensor([row["margin"] for row in rows], dtype=torch.float32),
        }


class JudgeRewardTrainer(HeldOutMixin, RewardTrainer):
    """TRL's trainer; its loss is the special case without ties (a test compares them)."""

    def __init__(self, *args: Any, ties: Ties, center_coef: float, shared: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ties = ties.to(self.args.device)
        self.center_coef = center_coef
        self._options = prepare_forward(self, shared)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        tied, margin = inputs.pop("tied"), inputs.pop("margin")
        outputs = model(**inputs, **self._options)
        chosen, rejected = outputs.logits.float().squeeze(-1).chunk(2)
        gap = chosen - rejected
        loss = self.ties.loss(gap, tied, margin).mean()
        if self.center_coef:
            loss = loss + self.center_coef * (chosen + rejected).square().mean()
        self._note(chosen.detach(), rejected.detach(), tied)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:  # the last pass of an update
            self.ties.step(lambda gradient: self.accelerator.reduce(gradient, "mean"))
            if self.ties.learned and self.ties.value is not None:
                self._metrics["train"]["tie_parameter"] = [self.ties.value]
        return loss

    def _note(self, chosen: Tensor, rejected: Tensor, tied: Tensor) -> None:
        """Add this pass's figures, pair by pair: TRL's `log` takes the mean of each list."""
        chosen, rejected, tied = self.accelerator.gather((chosen, rejected, tied))
        noted, gap = self._metrics["train"], (chosen - rejected)[~tied]
        noted["score_mean"].append(float((chosen + rejected).mean() / 2))
        if len(gap):  # an empty list has no mean
            noted["accuracy_untied"] += (gap > 0).float().tolist()
            noted["reward_gap"] += gap.tolist()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)
        card = load_scalar_card(resume_from_checkpoint)
        if self.ties.learned and card is not None:
            self.ties.value = card.ties["parameter"]


def margins(section: BradleyTerrySection, pairs: Sequence[PreferencePair]) -> list[float]:
    """How far apart the scores of each pair shall be: 0 of a tie."""
    scale = section.margin_scale if section.margin == "strength" else 0.0
    return [scale * pair.strength for pair in pairs]


def _ties(section: BradleyTerrySection, pairs: Sequence[PreferencePair]) -> Ties:
    share = sum(pair.tied for pair in pairs) / len(pairs)
    return Ties(section.ties, section.tie_parameter, share)
