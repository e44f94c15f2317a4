"""Training: one YAML for both engines and all methods; `local` runs TRL on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rm_gallery.core.train.config import TrainConfig, load_config

if TYPE_CHECKING:
    from rm_gallery.core.train.dataset import BaseTrainDataset

__all__ = ["BaseTrainDataset", "TrainConfig", "load_config"]


def __getattr__(name: str) -> Any:
    if name == "BaseTrainDataset":  # on demand: it brings in torch
        from rm_gallery.core.train.dataset import BaseTrainDataset

        return BaseTrainDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
