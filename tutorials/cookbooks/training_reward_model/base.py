"""Where the cookbooks import the dataset's base class from."""

from rm_gallery.core.train import BaseTrainDataset

__all__ = ["BaseTrainDataset"]
