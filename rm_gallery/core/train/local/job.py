"""`Job`: what a method brings to a run of the local engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.run_folder import RunFolder
from rm_gallery.core.train.sampling import prompt_order


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """A method's rows, read and checked before a model is loaded, and how it trains on them.

    Attributes:
        order: the indices of the training rows in the order of training, `batch_size` for each step.
        rows: how many training rows are used; `unit` is what they are called.
        overlong: training rows left out for their length; `overlong_val`: held-out ones.
        notes: sentences on what else was left out.
    """

    unit: ClassVar[str] = "rows"

    config: TrainConfig
    tokenizer: Any
    order: Sequence[int]
    rows: int
    overlong: int = 0
    overlong_val: int = 0
    notes: Sequence[str] = ()

    @abstractmethod
    def trainer(self, run: RunFolder, start: str) -> Any:
        """Load the model from `start` and build the trainer, with its held-out evaluation."""

    @abstractmethod
    def save_card(self, folder: Path, trainer: Any) -> None:
        """Write `rm_gallery.json` into a checkpoint."""


def training_order(config: TrainConfig, prompts: Sequence[Hashable]) -> list[int]:
    """The indices of the training rows in the order of training; `prompts` are the rows' own, equal where they share one.

    Raises:
        ConfigError: there are fewer rows than a batch.
    """
    by_prompt = config.data.shuffle == "prompts"
    return prompt_order(
        [prompt if by_prompt else i for i, prompt in enumerate(prompts)],
        config.train.batch_size,
        epochs=config.train.epochs,
        max_steps=config.train.max_steps,
        seed=config.train.seed,
    )
