"""The responses to one prompt, from best to worst: by a grader's scores, or by comparing each pair in both orders.

rankings = await runner.arank([{"query": …, "responses": […, …, …]}])
print(rankings["judge"][0].best)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rm_gallery.core.errors import DataError
from rm_gallery.core.graders import GraderError, GraderResult, GraderScore
from rm_gallery.core.runner.pairs import RESPONSES, Match, check_items, compare

if TYPE_CHECKING:
    from rm_gallery.core.runner.runner import GradingRunner


@dataclass(frozen=True, slots=True)
class Ranking:
    """The responses to one prompt.

    Attributes:
        values: what each is ranked by: its score, or the share it won of its comparisons; NaN where it has none.
        ranks: 1 and the number of responses that are better, so that equal ones share a rank; None where it has none.
        reason: what has no verdict, and of what cause; "" where nothing is missing. Those without a value are not
            ranked; the others are, by what is there.
        results: the grader's, of each response or of each comparison in both orders.
    """

    values: tuple[float, ...]
    ranks: tuple[int | None, ...]
    reason: str
    results: tuple[GraderResult, ...]

    @property
    def best(self) -> int | None:
        """The index of the best response, of several that are equal the first; None where none has a value."""
        return self.tied[0] if self.tied else None

    @property
    def tied(self) -> tuple[int, ...]:
        """The indices of all responses that share the first rank."""
        return tuple(i for i, rank in enumerate(self.ranks) if rank == 1)

    @property
    def order(self) -> tuple[int, ...]:
        """The indices of the ranked responses, the best first; equal ones as they were given."""
        ranked = [(rank, i) for i, rank in enumerate(self.ranks) if rank is not None]
        return tuple(i for _, i in sorted(ranked))


def rank_scores(results: Sequence[GraderResult]) -> Ranking:
    """One prompt's responses by their scores."""
    values = [result.score if isinstance(result, GraderScore) else math.nan for result in results]
    missing = [
        f"response {i} has no score: {result.error if isinstance(result, GraderError) else 'it is a ranking'}"
        for i, result in enumerate(results)
        if not isinstance(result, GraderScore)
    ]
    return _ranking(values, missing, results)


def rank_matches(matches: Sequence[Match], responses: int) -> Ranking:
    """One prompt's responses, players "0" to "n-1", by what they won.

    Where all pairs have verdicts, this is the order of the Bradley-Terry strengths too, which need not exist.
    """
    if responses == 1:
        return Ranking((math.nan,), (1,), "a single response is compared with none", ())
    won, games = [0.0] * responses, [0] * responses
    missing = []
    for match in matches:
        i, j = int(match.first), int(match.second)
        if match.share is None:
            causes = ", ".join(match.problems)
            missing.append(f"responses {i} and {j} have no verdict in both orders ({causes})")
            continue
        won[i], won[j] = won[i] + match.share, won[j] + 1 - match.share
        games[i], games[j] = games[i] + 1, games[j] + 1
    values = [share / played if played else math.nan for share, played in zip(won, games, strict=True)]
    return _ranking(values, missing, [result for match in matches for result in match.results])


async def rank_responses(
    runner: GradingRunner, items: Sequence[Mapping[str, Any]]
) -> dict[str, list[Ranking]]:
    """Rank each item's `responses`.

    A grader of single responses is given the item's other fields with `response`, once for each. A grader of several is
    given `responses`, two at a time, each pair in both orders: n (n - 1) questions for n responses, or half as many to a
    grader that looks at both orders itself (`both_orders`).

    Returns:
        The grader's name → the rankings, aligned with the items.

    Raises:
        DataError: an item has no list of responses, or an empty one.
    """
    check_items(items)
    for position, item in enumerate(items):
        responses = item.get(RESPONSES)
        if not isinstance(responses, Sequence) or isinstance(responses, str) or not responses:
            raise DataError(f"item {position} has no list of responses: {responses!r}")
    comparing = [
        name
        for name, config in runner.grader_configs.items()
        if getattr(config.grader, "mode", "pointwise") == "listwise"
    ]
    scoring = [name for name in runner.grader_configs if name not in comparing]
    found: dict[str, list[Ranking]] = {}
    if scoring:
        single = [{**_rest(item), "response": response} for item in items for response in item[RESPONSES]]
        for name, results in (await runner.only(scoring).arun(single)).items():
            left = iter(results)
            found[name] = [rank_scores(list(itertools.islice(left, len(item[RESPONSES])))) for item in items]
    if comparing:
        pairs = [
            (n, i, j)
            for n, item in enumerate(items)
            for i, j in itertools.combinations(range(len(item[RESPONSES])), 2)
        ]
        asked = [(items[n], items[n][RESPONSES][i], items[n][RESPONSES][j]) for n, i, j in pairs]
        for name, given in (await compare(runner.only(comparing), asked)).items():
            matches: list[list[Match]] = [[] for _ in items]
            for (n, i, j), of_pair in zip(pairs, given, strict=True):
                matches[n].append(Match(n, str(i), str(j), of_pair))
            found[name] = [
                rank_matches(played, len(item[RESPONSES]))
                for played, item in zip(matches, items, strict=True)
            ]
    return {name: found[name] for name in runner.grader_configs}


def _rest(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != RESPONSES}


def _ranking(values: Sequence[float], missing: Sequence[str], results: Sequence[GraderResult]) -> Ranking:
    ranks = tuple(
        None if math.isnan(value) else 1 + sum(other > value for other in values) for value in values
    )
    return Ranking(tuple(values), ranks, "; ".join(missing), tuple(results))
