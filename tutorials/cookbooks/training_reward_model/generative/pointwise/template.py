"""The verdict's format and its strict parser."""

from rm_gallery.core.templates import MultiDimensionTrainTemplate, PointwiseTrainTemplate

__all__ = ["MultiDimensionTrainTemplate", "PointwiseTrainTemplate"]
