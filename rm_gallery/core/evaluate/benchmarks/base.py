"""A benchmark: prompts with responses, which of two is better, and the publisher's own way to a figure.

Every published benchmark of judges comes down to comparisons of responses to one prompt. A model that scores is asked
about each response once, a model that compares about each pair in both orders; what a benchmark aggregates is the same
`Outcome` of each comparison.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.data.samples import Message, Preferred, Row
from rm_gallery.core.errors import ConfigError, DataError, nearest
from rm_gallery.core.judge.orders import Outcome


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two of an item's responses, by position, and the truth: A is `first`, B is `second`."""

    first: int
    second: int
    truth: Preferred


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a benchmark with the responses that are compared.

    Attributes:
        unique_id: unique in the benchmark; taken from the file where it has one.
        cluster: what is resampled together: items made from the same prompt share it.
        input: the conversation.
        responses: of length k >= 2.
        comparisons: which of them are compared.
        tags: what the aggregation groups by (`{"subset": "chat"}`), and what a reader of the report looks for.
    """

    unique_id: str
    cluster: str
    input: tuple[Message, ...]
    responses: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge made of one item.

    Attributes:
        outcomes: one for each comparison, in order.
        values: its numbers for the responses where it scores (None: it gave none); None for one that compares.
        one_order: the judge was never shown the pairs swapped, as in some recorded verdicts: `swapped` is None there,
            which is no invalid verdict, and `preferred` is `forward`.
    """

    outcomes: tuple[Outcome, ...]
    values: tuple[float | None, ...] | None = None
    one_order: bool = False


@dataclass(frozen=True)
class Shares:
    """Figures as ratios of sums over units, so that their intervals, differences and tests come with them.

    Attributes:
        unit: of length N, what a line is (an item's id).
        cluster: of length N.
        columns: name → (N,) floats, what each unit adds to that figure's sum; NaN where it has no part in it.
        averages: name → {column: weight}: weighted means of those figures, the publisher's overall ones. Weights need
            not sum to 1.
        headline: the name of the figure by which systems are compared; in `columns` or `averages`.
        notes: sentences a reader must know (which part of the benchmark this is).
        denominators: column → (N,) floats, over how many each unit's entry is a sum, where that is not 1: an item
            with nine comparisons adds the number of right ones to the column and 9 to its denominator. A figure is
            the sum of its column over the sum of its denominators.
    """

    unit: tuple[str, ...]
    cluster: tuple[str, ...]
    columns: Mapping[str, NDArray[np.float64]]
    averages: Mapping[str, Mapping[str, float]]
    headline: str
    notes: tuple[str, ...] = ()
    denominators: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.unit)
        lengths = {"cluster": len(self.cluster)}
        lengths |= {
            name: len(values) for part in (self.columns, self.denominators) for name, values in part.items()
        }
        if wrong := [name for name, length in lengths.items() if length != size]:
            raise DataError(
                f"figures over {size} units need columns of that length; {', '.join(wrong)} differ"
            )
        known = {*self.columns, *self.averages}
        asked = {*self.denominators, *(name for parts in self.averages.values() for name in parts)}
        if missing := sorted((asked - set(self.columns)) | ({self.headline} - known)):
            raise DataError(f"these figures are used and not given: {', '.join(missing)}")


Kind = Literal["scores", "compares"]


class Benchmark(ABC):
    """One published benchmark: its file format and its aggregation.

    Attributes:
        name: as `--benchmark` takes it.
        source: where the format and the aggregation are defined, for the docs and the report.
        verified: whether it was tried on the publisher's own file.
        styles: what I and J stand for in figures named `style_I_J`, where it has those.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    verified: ClassVar[bool]
    styles: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def load(self, path: Path) -> list[Item]:
        """Read a file or folder in the publisher's layout.

        Raises:
            DataError: a file is missing, or a row is not as the format has it; names file and row.
        """

    def rows(self, path: Path) -> list[Row] | None:
        """The rated responses of a benchmark that has them, for a judge that rates: its scores are compared with the
        ratings themselves. None: there are only comparisons."""
        return None

    @abstractmethod
    def aggregate(self, items: Sequence[Item], judged: Sequence[Judged]) -> Shares:
        """The publisher's figures, and those that every benchmark has (`order_columns`)."""


_REGISTRY: dict[str, type[Benchmark]] = {}


def register_benchmark(cls: type[Benchmark]) -> type[Benchmark]:
    """Make a benchmark known by its `name`. Raises `ConfigError` where another one has it."""
    taken = _REGISTRY.get(cls.name)
    # a file of one's own may be loaded twice
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(f"the benchmark name {cls.name!r} is taken by {taken.__module__}.{taken.__name__}")
    _REGISTRY[cls.name] = cls
    return cls


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or one's own as `module:Class` or `file.py:Class`.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    known = benchmark_names()
    if ":" in name:
        from rm_gallery.core.rewards import load_object

        found = load_object(name)
        if not (isinstance(found, type) and issubclass(found, Benchmark)):
            raise ConfigError(f"benchmark {name}: expected a subclass of Benchmark, found {found!r}")
        return found()
    if name not in known:
        raise ConfigError(
            f"there is no benchmark {name!r}; there are {', '.join(known)}, and one's own is written "
            f"module:Class or file.py:Class.{nearest(name, known)}"
        )
    return _REGISTRY[name]()


def benchmark_names() -> list[str]:
    """All that `get_benchmark` takes, sorted."""
    # the core knows no dataset: the published ones register themselves when imported
    import rm_gallery.gallery.benchmarks  # noqa: F401

    return sorted(_REGISTRY)


def correct(item: Item, judged: Judged, which: Iterable[int] | None = None) -> list[float]:
    """1.0 where the combined preference of a comparison is the truth, else 0.0 (an invalid one included)."""
    picked = range(len(item.comparisons)) if which is None else which
    return [float(judged.outcomes[i].preferred == item.comparisons[i].truth) for i in picked]
