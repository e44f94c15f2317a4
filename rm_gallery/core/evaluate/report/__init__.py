"""The HTML report: one file that loads nothing, from evaluations and training runs."""

from rm_gallery.core.evaluate.report.inputs import Curve, Evaluation, ReportInput, read_inputs
from rm_gallery.core.evaluate.report.render import render_report, write_report
from rm_gallery.core.train.log import TrainingRun

__all__ = [
    "Curve",
    "Evaluation",
    "ReportInput",
    "TrainingRun",
    "read_inputs",
    "render_report",
    "write_report",
]
