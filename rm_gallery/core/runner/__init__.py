"""Graders over datasets: nothing lost, nothing graded twice, and what the grades come to."""

from rm_gallery.core.runner.aggregate import Aggregator, Part, Summary, scores, summarize, weighted_sum
from rm_gallery.core.runner.config import GraderConfig
from rm_gallery.core.runner.pairs import Match
from rm_gallery.core.runner.ranking import Ranking, rank_matches, rank_scores
from rm_gallery.core.runner.runner import GradingRunner
from rm_gallery.core.runner.tournament import Tournament

__all__ = [
    "Aggregator",
    "GraderConfig",
    "GradingRunner",
    "Match",
    "Part",
    "Ranking",
    "Summary",
    "Tournament",
    "rank_matches",
    "rank_scores",
    "scores",
    "summarize",
    "weighted_sum",
]
