"""The verdict's format and its strict parser."""

from rm_gallery.core.templates import PairwiseComparisonTemplate, extract_preference_from_response

__all__ = ["PairwiseComparisonTemplate", "extract_preference_from_response"]
