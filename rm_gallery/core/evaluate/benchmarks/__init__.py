"""Benchmarks: what the published ones have in common; the published ones themselves are in `rm_gallery.gallery`."""

from rm_gallery.core.evaluate.benchmarks.base import (
    Benchmark,
    Comparison,
    Item,
    Judged,
    Shares,
    benchmark_names,
    correct,
    get_benchmark,
    register_benchmark,
)
from rm_gallery.core.judge.orders import Outcome

__all__ = [
    "Benchmark",
    "Comparison",
    "Item",
    "Judged",
    "Outcome",
    "Shares",
    "benchmark_names",
    "correct",
    "get_benchmark",
    "register_benchmark",
]
