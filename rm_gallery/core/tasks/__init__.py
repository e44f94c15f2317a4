"""Tasks: the one definition of what a judge is asked, how its answer is read, and what the answer earns."""

from rm_gallery.core.tasks.base import Part, Task, get_task, task_names
from rm_gallery.core.tasks.multi_dimension import Dimension, MultiDimensionTask
from rm_gallery.core.tasks.pairwise import PairwiseTask
from rm_gallery.core.tasks.pointwise import PointwiseTask

__all__ = [
    "Dimension",
    "MultiDimensionTask",
    "PairwiseTask",
    "Part",
    "PointwiseTask",
    "Task",
    "get_task",
    "task_names",
]
