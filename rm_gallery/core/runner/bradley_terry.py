"""Strengths of players from who won against whom (Bradley & Terry 1952).

The chance that i wins against j is 1 / (1 + exp(θ_j - θ_i)). A tie is half a win of each. Where every player can be
reached from every other over wins, the likelihood has one maximum up to a shift of all θ (Ford 1957; Hunter 2004, "MM
algorithms for generalized Bradley-Terry models", Annals of Statistics 32:384-406, assumption 1), and θ is taken with
mean 0. Elsewhere it has none at finite strengths, and we say so instead of giving numbers.

Newton's method with halved steps, on many tables at once: the log-likelihood is concave in θ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_STEPS = 100
_CLOSE = 1e-10
"""Of the gradient, in wins a game: below it, θ is right to as many digits as it is read."""


def strengths(wins: Array) -> Array:
    """θ of every table: (…, k, k) → (…, k), NaN for a table without a maximum.

    Args:
        wins: [i, j] is how often i won against j, a tie counting one half in both places; the diagonal has no part.
    """
    wins = np.asarray(wins, dtype=np.float64)
    k = wins.shape[-1]
    tables: Array = wins.reshape(-1, k, k)
    fitted = np.full((len(tables), k), np.nan)
    solvable = _reach(tables).all(axis=(1, 2))
    if solvable.any():
        fitted[solvable] = _newton(tables[solvable])
    return fitted.reshape(wins.shape[:-1])


def log_likelihood(wins: Array, theta: Array) -> Array:
    """Σ wins[i, j] · log P(i wins against j), of every table: (…, k, k), (…, k) → (…)."""
    gaps = theta[..., :, None] - theta[..., None, :]
    found: Array = -(wins * np.logaddexp(0, -gaps)).sum(axis=(-2, -1))
    return found


def why_none(wins: Array, players: Sequence[str]) -> str:
    """The sentence for a table that has no strengths; "" for one that has."""
    table = np.asarray(wins, dtype=np.float64)
    if len(players) < 2:
        return "a single player has no strength: there is nobody to compare with"
    met = _reach((table + table.T)[None])[0]
    if not met.all():
        groups = _groups(met, players)
        return f"no strengths: the comparisons leave apart those who never met, {' | '.join(groups)}"
    reach = _reach(table[None])[0]
    if reach.all():
        return ""
    # in the order of who beats whom, the first group of players who reach each other lost nothing to the rest
    both = reach & reach.T
    top = next(i for i in range(len(players)) if not (reach[:, i] & ~both[:, i]).any())
    over = _named([name for name, same in zip(players, both[top], strict=True) if same])
    rest = _named([name for name, same in zip(players, both[top], strict=True) if not same])
    return f"no strengths: {over} lost and tied no comparison with {rest}, so how much stronger is not known"


def _newton(tables: Array) -> Array:
    count, k, _ = tables.shape
    games = tables + tables.transpose(0, 2, 1)
    scale = games.sum(axis=(1, 2))
    theta = np.zeros((count, k))
    value = log_likelihood(tables, theta)
    for _ in range(_STEPS):
        gaps = theta[:, :, None] - theta[:, None, :]
        chance = 1 / (1 + np.exp(-gaps))
        gradient = (tables - games * chance).sum(axis=2)
        moving = np.abs(gradient).max(axis=1) > _CLOSE * scale
        if not moving.any():
            break
        weight = games * chance * (1 - chance)
        # the Laplacian is singular along a shift of all: 1/k in every place leaves that direction at 0
        hessian = np.eye(k) * weight.sum(axis=2)[:, :, None] - weight + 1 / k
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        length = np.where(moving, 1.0, 0.0)
        while True:
            tried = log_likelihood(tables, theta + length[:, None] * step)
            worse = (tried < value - 1e-12 * scale) & (length > 1e-10)
            if not worse.any():
                break
            length[worse] /= 2
        theta = theta + length[:, None] * step
        theta -= theta.mean(axis=1, keepdims=True)
        value = tried
    else:
        theta[moving] = np.nan  # never seen; not converged is no number
    return theta


def _reach(tables: Array) -> NDArray[np.bool_]:
    """[i, j]: whether a chain of wins leads from i to j."""
    k = tables.shape[-1]
    reach = (tables > 0) | np.eye(k, dtype=bool)
    for _ in range(max(1, int(np.ceil(np.log2(max(k, 2)))))):
        steps = reach.astype(np.float32)
        reach = steps @ steps > 0
    return reach


def _groups(met: NDArray[np.bool_], players: Sequence[str]) -> list[str]:
    seen: dict[tuple[bool, ...], list[str]] = {}
    for player, row in zip(players, met, strict=True):
        seen.setdefault(tuple(row.tolist()), []).append(player)
    return [_named(group) for group in seen.values()]


def _named(players: Sequence[str]) -> str:
    shown = [*players[:5], f"{len(players) - 5} more"] if len(players) > 6 else list(players)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
