"""HelpSteer2 (nvidia): pairs from rated responses, and the preferences between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rm_gallery.core.data.converters import expand, marked
from rm_gallery.core.data.samples import Row, Sample
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.aggregate import Figures
from rm_gallery.core.evaluate.benchmarks.base import (
    Benchmark,
    Comparison,
    Item,
    Judged,
    Shares,
    register_benchmark,
)
from rm_gallery.core.evaluate.benchmarks.labelled import accuracies, pairs_of_ratings
from rm_gallery.core.evaluate.benchmarks.reading import checked_items, located, make_item, read_rows
from rm_gallery.gallery.data.load import HelpSteer2PairwiseConverter, HelpSteer2PointwiseConverter

PROMPTS = 519
"""Of the published validation split."""


@register_benchmark
class HelpSteer2(Benchmark):
    """The two responses to each prompt as a pair; the one with the higher helpfulness is better, equal ones tie.

    The rated responses by themselves (`rows`) are evaluated like any other labelled file.
    """

    name: ClassVar[str] = "helpsteer2"
    source: ClassVar[str] = (
        "huggingface.co/datasets/nvidia/HelpSteer2 (format); the pairs and their figures are this project's"
    )
    verified: ClassVar[bool] = True

    def load(self, path: Path) -> list[Item]:
        """Of a file, or of `validation.jsonl(.gz)` in a folder. A prompt with one response makes no pair."""
        return checked_items(pairs_of_ratings(_samples(path)), path)

    def rows(self, path: Path) -> list[Row]:
        """The labelled responses, as `rmg data convert` would export them.

        Raises:
            DataError: a file is missing, or a row is not as the format has it; names file and row.
        """
        return [sample.to_row() for sample in _samples(path)]

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        note = f"{len(items)} pairs; the published validation split has {PROMPTS}."
        figures = Figures(items, judged)
        accuracies(figures)
        return figures.shares("accuracy_untied", {}, [note] if len(items) != PROMPTS else [])


@register_benchmark
class HelpSteer2Preference(Benchmark):
    """Annotated preferences; a strength of 0 is a tie."""

    name: ClassVar[str] = "helpsteer2_preference"
    source: ClassVar[str] = (
        "huggingface.co/datasets/nvidia/HelpSteer2, folder preference (format); the figures are this project's"
    )
    verified: ClassVar[bool] = True

    def load(self, path: Path) -> list[Item]:
        """Of a file, or of `preference.jsonl(.gz)` in a folder: its rows of the split `validation`, if it has one."""
        converter = HelpSteer2PairwiseConverter()
        found: list[tuple[Any, Item]] = []
        for row, place in read_rows(_file(path, "preference.jsonl")):
            with located(place):
                judgment = converter.parse(row)
                pair = expand(judgment, marked(judgment))[0]
            answers, comparison = [pair.response_a, pair.response_b], Comparison(0, 1, pair.preferred)
            name, tags = str(pair.metadata["group"]), {"strength": str(abs(pair.strength))}
            found.append((row.get("split"), make_item(name, pair.input, answers, [comparison], tags=tags)))
        held_out = [item for split, item in found if split == "validation"]
        return checked_items(held_out or [item for _, item in found], path)

    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        figures = Figures(items, judged)
        accuracies(figures)
        return figures.shares("accuracy_untied", {})


def _samples(path: Path) -> list[Sample]:
    converter = HelpSteer2PointwiseConverter()
    samples: list[Sample] = []
    for row, place in read_rows(_file(path, "validation.jsonl")):
        with located(place):
            judgment = converter.parse(row)
            samples += expand(judgment, marked(judgment))
    return samples


def _file(path: Path, name: str) -> Path:
    """The file of that name in a folder, packed or not."""
    if not path.is_dir():
        return path
    for file in (path / name, path / f"{name}.gz"):
        if file.is_file():
            return file
    raise DataError(f"{path} holds no {name} and no {name}.gz; name the file itself")
