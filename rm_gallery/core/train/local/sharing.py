"""What the trainers do that encode each distinct prompt once (`core/models/scoring.py`)."""

from __future__ import annotations

from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.forest import fits_forest, forest_attention
from rm_gallery.core.models.scoring import check_logits
from rm_gallery.core.models.weights import inner_model


def share_prompts(trainer: Any, *models: Any) -> None:
    """Check that each of the models can score answers (`scoring.py`), and let the trainer's backward pass know how.

    Raises:
        ConfigError: a model cannot; says what to set.
    """
    for model in models:
        inner = inner_model(trainer.accelerator.unwrap_model(model))
        if getattr(inner.config, "output_router_logits", False):
            raise ConfigError(
                "a mixture of experts trains its router too: set model.shared_prefix to false for it"
            )
        if trainer.args.gradient_checkpointing and not fits_forest(inner, training=True):
            raise ConfigError(
                "attention of this model is not the plain one in every layer, so a shared prompt is kept in a cache, "
                "which model.gradient_checkpointing drops: set it or model.shared_prefix to false"
            )
        check_logits(inner)
    backward_in_forests(trainer)


def backward_in_forests(trainer: Any) -> None:
    """Under gradient checkpointing, backward computes the attention of forests anew, and has to be told so."""
    if not trainer.args.gradient_checkpointing:
        return
    accelerator, model = trainer.accelerator, trainer.model
    original = accelerator.backward

    def backward(*args: Any, **kwargs: Any) -> None:
        with forest_attention(accelerator.unwrap_model(model)):
            original(*args, **kwargs)

    accelerator.backward = backward
