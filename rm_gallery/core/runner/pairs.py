"""Two responses shown to a judge in both orders, and what that comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders import GraderError, GraderRank, GraderResult

if TYPE_CHECKING:
    from rm_gallery.core.runner.runner import GradingRunner

RESPONSES = "responses"
"""The field in which a grader of several responses is given them."""

_POINTS = {"A": 1.0, "tie": 0.5, "B": 0.0}


@dataclass(frozen=True, slots=True)
class Match:
    """One comparison of two players on one item.

    Attributes:
        item: its position.
        first, second: the players.
        results: the grader's rankings of (first's response, second's) and of (second's, first's); of a grader that
            looks at both orders itself, one ranking of (first's, second's).
    """

    item: int
    first: str
    second: str
    results: tuple[GraderResult, ...]

    @property
    def orders(self) -> tuple[float | None, float | None]:
        """What `first` won where it was shown first and where it was shown second: 1, 0, or ½ for a tie.

        None where there is no verdict, or a grader that looks at both orders does not say what it saw in each.
        """
        if len(self.results) == 2:
            forward, swapped = map(points, self.results)
            return forward, None if swapped is None else 1 - swapped
        said = self.results[0].metadata.get("orders")
        found = said if isinstance(said, Mapping) else {}
        return _told(found.get("forward")), _told(found.get("swapped"))

    @property
    def share(self) -> float | None:
        """What `first` won of the comparison, from 0 to 1; None where an order has no verdict.

        One order alone would bring in what the judge makes of the place.
        """
        if len(self.results) == 1:
            return points(self.results[0])
        forward, swapped = self.orders
        return None if forward is None or swapped is None else (forward + swapped) / 2

    @property
    def problems(self) -> list[str]:
        """The causes of the verdicts that are missing."""
        return [_problem(result) for result in self.results if points(result) is None]


def points(result: GraderResult) -> float | None:
    """What the response shown first won against the other, None where the result ranks no two responses."""
    if not isinstance(result, GraderRank) or len(result.rank) != 2:
        return None
    first, second = result.rank
    return 1.0 if first < second else 0.0 if first > second else 0.5


async def compare(
    runner: GradingRunner, comparisons: Sequence[tuple[Mapping[str, Any], Any, Any]]
) -> dict[str, list[tuple[GraderResult, ...]]]:
    """Ask each grader for each comparison, (the item's fields, a response, another), in both orders.

    A grader that looks at both orders itself (`both_orders`) is asked once.

    Returns:
        The grader's name → the results of each comparison, one or two, as `Match.results`.
    """
    found: dict[str, list[tuple[GraderResult, ...]]] = {}
    for times in (1, 2):
        names = [name for name, c in runner.grader_configs.items() if 2 - _looks_at_both(c.grader) == times]
        if not names:
            continue
        results = await runner.only(names).arun(_Questions(comparisons, times))
        for name in names:
            given = results[name]
            found[name] = [tuple(given[i : i + times]) for i in range(0, len(given), times)]
    return {name: found[name] for name in runner.grader_configs}


def check_compares(runner: GradingRunner) -> None:
    """Raises `ConfigError` where a grader scores single responses."""
    for name, config in runner.grader_configs.items():
        if getattr(config.grader, "mode", "pointwise") != "listwise":
            raise ConfigError(
                f"grader {name} scores single responses; a tournament needs graders that compare"
            )


def check_items(items: Sequence[Any]) -> None:
    """Raises `DataError` where an item is no mapping."""
    for position, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise DataError(f"item {position} is a {type(item).__name__}; expected fields by name")


@dataclass(frozen=True)
class _Questions:
    """The items that comparisons come to, made as they are asked for."""

    comparisons: Sequence[tuple[Mapping[str, Any], Any, Any]]
    times: int

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item, first, second in self.comparisons:
            for shown in ((first, second), (second, first))[: self.times]:
                yield {**item, RESPONSES: list(shown)}

    def __len__(self) -> int:
        return self.times * len(self.comparisons)


def _looks_at_both(grader: Any) -> bool:
    return bool(getattr(grader, "both_orders", False))


def _told(order: Any) -> float | None:
    """The points of the first response, by what a grader says of one order."""
    verdict = order.get("verdict") if isinstance(order, Mapping) else None
    return _POINTS.get(verdict) if isinstance(verdict, str) else None


def _problem(result: GraderResult) -> str:
    if isinstance(result, GraderError):
        return result.kind or "unknown"
    return "no_ranking"
