"""The verdict's format and its strict parser, and the one for several scores at once."""

from rm_gallery.core.templates import MultiDimensionTrainTemplate, PointwiseTrainTemplate

__all__ = ["MultiDimensionTrainTemplate", "PointwiseTrainTemplate"]
