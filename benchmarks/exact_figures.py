"""What benchmarks/exact.py makes of its runs: from when on a reward is held, intervals, the table and the plot."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("grpo", "exact")
RESAMPLES = 2000


def interval(gains: np.ndarray, prompts: list[str]) -> list[float]:
    """95% of the mean of `gains` (seeds, rows), over resamples of seeds and of prompts with all their rows."""
    names, place = np.unique(prompts, return_inverse=True)
    sums = np.stack([np.bincount(place, weights=row, minlength=len(names)) for row in gains])
    sizes = np.bincount(place, minlength=len(names))
    draw = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        seeds = draw.integers(len(gains), size=len(gains))
        chosen = draw.integers(len(names), size=len(names))
        means.append(sums[np.ix_(seeds, chosen)].sum() / (len(seeds) * sizes[chosen].sum()))
    return [float(x) for x in np.quantile(means, [0.025, 0.975])]


def held_from(points: list[dict[str, float]], reward: float) -> dict[str, float] | None:
    """The first point from which on the reward is at least this; a crossing by luck, lost again, is none."""
    found = None
    for point in reversed(points):
        if point["reward"] < reward:
            break
        found = point
    return found


def mean_curve(curves: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Steps, seconds and reward, means over the seeds."""
    return [
        {name: statistics.fmean(point[name] for point in points) for name in ("step", "seconds", "reward")}
        for points in zip(*curves, strict=True)
    ]


def compare(runs: dict[str, dict[str, list]], gain: dict[str, Any]) -> dict[str, Any]:
    """GRPO's last reward and seconds, and from when on `exact` holds as much: of the mean curves, and by seed."""

    def pair(grpo: list[dict[str, float]], exact: list[dict[str, float]]) -> dict[str, float | None]:
        last = grpo[-1]
        held = held_from(exact, last["reward"])
        return {
            "grpo_reward": last["reward"],
            "grpo_seconds": last["seconds"],
            "exact_seconds": held and held["seconds"],
            "exact_step": held and held["step"],
            "share": held and held["seconds"] / last["seconds"],
        }

    found = {
        "mean": pair(*(mean_curve(list(runs[method].values())) for method in METHODS)),
        "by_seed": {seed: pair(points, runs["exact"][seed]) for seed, points in runs["grpo"].items()},
    }
    if gain["interval"][0] <= 0:
        return {**found, "claim": None, "why": "GRPO's own gain is within noise"}
    if found["mean"]["share"] is None:
        return {**found, "claim": None, "why": "exact never holds it"}
    return {**found, "claim": found["mean"]["share"]}


def plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")

    def draw(points: list[dict[str, float]], **style: Any) -> None:
        shown = points[1:]  # the start has no place on a logarithmic axis
        axes.plot([p["seconds"] for p in shown], [p["reward"] for p in shown], **style)

    for method, colour in zip(METHODS, ("#b3541e", "#1e6fb3"), strict=True):
        curves = list(found["runs"][method].values())
        for points in curves:
            draw(points, color=colour, alpha=0.25)
        label = f"{method}, mean of {len(curves)}"
        draw(mean_curve(curves), color=colour, linewidth=2, marker=".", label=label)
    axes.axhline(found["start_reward"], color="grey", linestyle=":", label="start")
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("held-out reward, greedy answers")
    axes.set_title(f"{found['model']}, {found['data']['val']}, {found['settings']['samples']} samples")
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def show(found: dict[str, Any]) -> None:
    print(f"\nstart: held-out reward {found['start_reward']:.4f}")
    for method in METHODS:
        curves, gain = list(found["runs"][method].values()), found["gain"][method]
        tuned = found["learning_rate"][method]
        print(
            f"{method:6} at {tuned['chosen']:g}{' (the edge of the grid)' if tuned['at_edge'] else ''}: reward "
            f"{statistics.fmean(c[-1]['reward'] for c in curves):.4f}, gain {gain['mean']:+.4f} "
            f"[{gain['interval'][0]:+.4f}, {gain['interval'][1]:+.4f}], "
            f"{statistics.median(c[-1]['seconds'] for c in curves):.1f} s"
        )
    result, seeds = found["comparison"], found["comparison"]["by_seed"]
    if result["claim"] is None:
        print(f"no claim: {result['why']}")
    else:
        shares = ["never" if each["share"] is None else f"{each['share']:.1%}" for each in seeds.values()]
        print(
            f"exact holds GRPO's last reward from {result['claim']:.1%} of its seconds on; by seed: {', '.join(shares)}"
        )
