"""A model as a judge: its written verdict, and its distribution over the legal verdicts."""

from rm_gallery.core.judge.local import Distribution, LocalJudge

__all__ = ["Distribution", "LocalJudge"]
