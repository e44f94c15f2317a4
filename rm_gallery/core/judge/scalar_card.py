"""The card `rm_gallery.json` of a scalar model: how it was trained, and what its numbers are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rm_gallery import __version__
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.tasks.saved import CARD, SCALAR, card_kind

SCORE = "score"
"""What a single number without a name is called."""


class ScalarCard(BaseModel):
    """What a folder with a trained scalar model says of itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer version may have written more

    kind: Literal["scalar"] = SCALAR
    method: str
    """`bradley_terry` or `regression`."""
    data: str
    """The file that it was trained on."""
    examples: int
    """How many pairs or rated responses of it."""
    attributes: dict[str, float] = {}
    """The head's labels in their order, each with its weight in the one number; {} of a head with one number."""
    ties: dict[str, Any] = {}
    """Of `bradley_terry` with ties: the likelihood and its parameter, for P(tie) of two scores."""
    rm_gallery: str = __version__

    def save(self, folder: str | Path) -> None:
        target = Path(folder) / CARD
        part = target.with_suffix(".part")
        part.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        part.replace(target)


def load_scalar_card(folder: str | Path) -> ScalarCard | None:
    """The card of a folder with a scalar model that this toolkit trained; None for any other model.

    Raises:
        ConfigError: the card is damaged.
    """
    path = Path(folder).expanduser() / CARD
    if card_kind(path) != SCALAR:
        return None
    try:
        return ScalarCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path} is damaged: {error.errors()[0]['msg']}") from None


def attributes_of(folder: str | Path) -> dict[str, float]:
    """The labels of a scalar model's head with their weights, as its card has them; {} for a head with one number."""
    card = load_scalar_card(folder)
    return card.attributes if card else {}


def name_labels(config: Any, attributes: Mapping[str, float]) -> None:
    """Write into a model's configuration what its labels are, so that transformers' pipeline gives the bare numbers."""
    names = list(attributes) or [SCORE]
    config.problem_type = "regression"
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
