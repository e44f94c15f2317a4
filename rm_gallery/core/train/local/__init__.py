"""The local engine: TRL's trainers on our tasks, on a CPU, one GPU, or several through accelerate."""

from rm_gallery.core.train.local.engine import TrainResult, check_rows, train_local

__all__ = ["TrainResult", "check_rows", "train_local"]
