"""`play`: players' responses to the same prompts set against each other, each pair in both orders.

tables = await runner.atournament({"base": answers, "tuned": other_answers}, [{"query": …}, …])
print(tables["judge"].win_rates["tuned"], tables["judge"].strengths["tuned"])
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rm_gallery.core.errors import ConfigError, DataError, nearest
from rm_gallery.core.evaluate.agreement import ratio
from rm_gallery.core.evaluate.statistics import RESAMPLES, Estimate, resample_sums, with_interval
from rm_gallery.core.runner.bradley_terry import strengths, why_none
from rm_gallery.core.runner.pairs import Match, check_compares, check_items, compare

if TYPE_CHECKING:
    from rm_gallery.core.runner.runner import GradingRunner

Array = NDArray[np.float64]
Schedule = Iterable[tuple[int, str, str]]
"""(position of the item, player, player): the comparisons to make."""

_BLOCK = 20_000_000  # numbers in memory at once while strengths are resampled: 160 MB


@dataclass(frozen=True)
class Tournament:
    """What a judge made of it. All intervals are of 95%, by resampling items.

    Attributes:
        players: in the order they were given.
        matches: every comparison with its two verdicts.
        win_rates: of each player, the mean of what it won, a tie counting one half, over the comparisons with a
            verdict in both orders.
        strengths: of each player, its log-odds in the Bradley-Terry model of the same comparisons, mean 0 over the
            players. NaN with the reason where there are none.
        flip_rate: of the comparisons with a known verdict in both orders, the share where the two differ.
        first_position_rate: of the verdicts that prefer a response, the share that prefers the one shown first.
        errors: cause → how many verdicts are missing.
    """

    players: tuple[str, ...]
    matches: tuple[Match, ...]
    win_rates: Mapping[str, Estimate]
    strengths: Mapping[str, Estimate]
    flip_rate: Estimate
    first_position_rate: Estimate
    errors: Mapping[str, int]

    @property
    def complete(self) -> int:
        """The comparisons with a verdict in both orders, which are those that count."""
        return sum(match.share is not None for match in self.matches)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON, without the matches."""
        return {
            "players": list(self.players),
            "comparisons": len(self.matches),
            "complete": self.complete,
            "errors": dict(self.errors),
            "win_rates": {name: found.to_dict() for name, found in self.win_rates.items()},
            "strengths": {name: found.to_dict() for name, found in self.strengths.items()},
            "flip_rate": self.flip_rate.to_dict(),
            "first_position_rate": self.first_position_rate.to_dict(),
        }


async def play(
    runner: GradingRunner,
    entries: Mapping[str, Sequence[Any]],
    items: Sequence[Mapping[str, Any]],
    *,
    schedule: Schedule | None = None,
    seed: int = 0,
) -> dict[str, Tournament]:
    """Let each grader of the runner compare the players' responses.

    A grader is given an item's fields with `responses`, the two in the order they are shown. One that looks at both
    orders itself (`both_orders`) is asked once, and its verdict is that of both.

    Args:
        entries: player → its response to each item, in their order; None where it has none and takes no part.
        items: the prompts.
        schedule: the comparisons; None: all pairs of players on all items.
        seed: of the resampling.

    Returns:
        The grader's name → its tournament.

    Raises:
        ConfigError: a grader scores single responses, or there are fewer than two players.
        DataError: the responses are not as many as the items, or the schedule names what is not there.
    """
    check_compares(runner)
    check_items(items)
    planned = _planned(entries, len(items), schedule)
    comparisons = [(items[i], entries[first][i], entries[second][i]) for i, first, second in planned]
    found = await compare(runner, comparisons)
    return {
        name: table(
            tuple(entries),
            tuple(Match(*match, given) for match, given in zip(planned, results, strict=True)),
            seed=seed,
        )
        for name, results in found.items()
    }


def table(
    players: tuple[str, ...], matches: tuple[Match, ...], *, resamples: int = RESAMPLES, seed: int = 0
) -> Tournament:
    """The figures of comparisons that were made."""
    number = {player: i for i, player in enumerate(players)}
    rows: dict[int, int] = {}
    for match in matches:
        rows.setdefault(match.item, len(rows))
    k = len(players)
    wins = np.zeros((len(rows), k, k))
    flips, places = np.zeros((len(rows), 2)), np.zeros((len(rows), 2))
    for match in matches:
        row, i, j = rows[match.item], number[match.first], number[match.second]
        forward, swapped = match.orders
        if forward is not None and swapped is not None:
            flips[row] += (forward != swapped, 1)
        for shown_first in (forward, None if swapped is None else 1 - swapped):
            if shown_first in (0, 1):
                places[row] += (shown_first, 1)
        if match.share is not None:
            wins[row, i, j] += match.share
            wins[row, j, i] += 1 - match.share
    missing = Counter(problem for match in matches for problem in match.problems)
    cells = wins.reshape(len(rows), k * k)
    total = wins.sum(axis=0)
    fitted = strengths(total)
    why = why_none(total, players) or "no strengths"
    drawn_rates, drawn_fits = _resampled(cells, k, resamples, seed)
    rates = _rates(total[None])[0]
    games = (total + total.T).sum(axis=1)
    return Tournament(
        players=players,
        matches=matches,
        win_rates={
            player: with_interval(
                float(rates[i]),
                drawn_rates[:, i],
                int(games[i]),
                int((wins[:, i].sum(axis=1) + wins[:, :, i].sum(axis=1) > 0).sum()),
                f"{player} has no comparison with a verdict in both orders",
            )
            for i, player in enumerate(players)
        },
        strengths={
            player: with_interval(float(fitted[i]), drawn_fits[:, i], int(games[i]), len(rows), why)
            for i, player in enumerate(players)
        },
        flip_rate=_ratio(flips, resamples, seed, "no comparison has a known verdict in both orders"),
        first_position_rate=_ratio(places, resamples, seed, "no verdict prefers one of the responses"),
        errors=dict(missing.most_common()),
    )


def _planned(
    entries: Mapping[str, Sequence[Any]], items: int, schedule: Schedule | None
) -> list[tuple[int, str, str]]:
    players = list(entries)
    if len(players) < 2:
        raise ConfigError(f"a tournament needs two players or more, and there are {len(players)}")
    for player, responses in entries.items():
        if isinstance(responses, str) or len(responses) != items:
            raise DataError(
                f"{player} has {len(responses)} responses and there are {items} items; expected one for each, "
                "None where it has none"
            )
    if schedule is None:
        return [
            (i, first, second)
            for i in range(items)
            for first, second in itertools.combinations(players, 2)
            if entries[first][i] is not None and entries[second][i] is not None
        ]
    planned = []
    for item, first, second in schedule:
        for player in (first, second):
            if player not in entries:
                raise DataError(f"the schedule names {player!r}, who is no player.{nearest(player, players)}")
        if not 0 <= item < items:
            raise DataError(f"the schedule names item {item}, and there are {items}, counted from 0")
        if first == second:
            raise DataError(f"the schedule sets {first} against itself, on item {item}")
        for player in (first, second):
            if entries[player][item] is None:
                raise DataError(f"the schedule names {player} on item {item}, to which it has no response")
        planned.append((item, first, second))
    return planned


def _resampled(cells: Array, k: int, resamples: int, seed: int) -> tuple[Array, Array]:
    """Win rates and strengths of each resample of the items, both (B, k)."""
    if len(cells) < 2:
        return np.full((1, k), np.nan), np.full((1, k), np.nan)
    drawn = resample_sums(cells, resamples, seed).reshape(-1, k, k)
    step = max(1, _BLOCK // (k * k))
    fits = [strengths(drawn[i : i + step]) for i in range(0, len(drawn), step)]
    return _rates(drawn), np.concatenate(fits)


def _rates(tables: Array) -> Array:
    won = tables.sum(axis=2)
    games = won + tables.sum(axis=1)
    return ratio(won, games)


def _ratio(sums: Array, resamples: int, seed: int, why: str) -> Estimate:
    value = float(ratio(*sums.sum(axis=0, keepdims=True).T)[0])
    drawn = ratio(*resample_sums(sums, resamples, seed).T) if len(sums) > 1 else np.array([np.nan])
    return with_interval(value, drawn, int(sums[:, 1].sum()), int((sums[:, 1] > 0).sum()), why)
