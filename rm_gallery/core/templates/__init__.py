"""Prompt templates: fields of a model class become the output format and the strict parser of verdicts."""

from rm_gallery.core.templates.base import BasePromptTemplate
from rm_gallery.core.templates.judging import (
    MultiDimensionTrainTemplate,
    PairwiseComparisonTemplate,
    PointwiseTrainTemplate,
    Preference,
    extract_preference_from_response,
)

__all__ = [
    "BasePromptTemplate",
    "MultiDimensionTrainTemplate",
    "PairwiseComparisonTemplate",
    "PointwiseTrainTemplate",
    "Preference",
    "extract_preference_from_response",
]
