"""Training: one YAML for both engines and all methods; `local` runs TRL on this machine."""

from rm_gallery.core.train.config import TrainConfig, load_config

__all__ = ["TrainConfig", "load_config"]
