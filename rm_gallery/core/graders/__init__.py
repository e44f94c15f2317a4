"""Graders: a judge, a function or a rule that gives an item a score, a rank, or the reason why not."""

from rm_gallery.core.graders.base import BaseGrader, GraderMode
from rm_gallery.core.graders.function import FunctionGrader
from rm_gallery.core.graders.judge import NO_REASON, JudgeGrader, PairJudgeGrader
from rm_gallery.core.graders.llm import LLMGrader
from rm_gallery.core.graders.result import (
    GraderError,
    GraderRank,
    GraderResult,
    GraderScore,
    result_from_json,
    result_to_json,
)

__all__ = [
    "NO_REASON",
    "BaseGrader",
    "FunctionGrader",
    "GraderError",
    "GraderMode",
    "GraderRank",
    "GraderResult",
    "GraderScore",
    "JudgeGrader",
    "LLMGrader",
    "PairJudgeGrader",
    "result_from_json",
    "result_to_json",
]
