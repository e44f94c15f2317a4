"""A model as a judge: its written verdict, its distribution over the legal verdicts, the vote of its samples."""

from rm_gallery.core.judge.answer import MODES, Answer, Judge, Mode, Scorer
from rm_gallery.core.judge.local import LocalJudge

__all__ = ["MODES", "Answer", "Judge", "LocalJudge", "Mode", "Scorer"]
