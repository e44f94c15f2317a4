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


def reached_at(points: list[dict[str, float]], reward: float) -> dict[str, float] | None:
    """The first point at which the reward is at least this, whether it stays or not."""
    return next((point for point in points if point["reward"] >= reward), None)


def mean_curve(curves: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Steps, seconds and reward, means over the seeds."""
    return [
        {name: statistics.fmean(point[name] for point in points) for name in ("step", "seconds", "reward")}
        for points in zip(*curves, strict=True)
    ]


def compare(runs: dict[str, dict[str, list]], gain: dict[str, Any]) -> dict[str, Any]:
    """GRPO's last reward and seconds, when `exact` has as much, and from when on it holds it: of the mean curves, and by
    seed. The claim is of the mean curves."""

    def pair(grpo: list[dict[str, float]], exact: list[dict[str, float]]) -> dict[str, Any]:
        last = grpo[-1]

        def beside(point: dict[str, float] | None) -> dict[str, float] | None:
            if point is None:
                return None
            seconds = point["seconds"]
            return {"step": point["step"], "seconds": seconds, "share": seconds / last["seconds"]}

        return {
            "grpo_reward": last["reward"],
            "grpo_seconds": last["seconds"],
            "reached": beside(reached_at(exact, last["reward"])),
            "held": beside(held_from(exact, last["reward"])),
        }

    found = {
        "mean": pair(*(mean_curve(list(runs[method].values())) for method in METHODS)),
        "by_seed": {seed: pair(points, runs["exact"][seed]) for seed, points in runs["grpo"].items()},
    }
    if gain["interval"][0] <= 0:
        return {**found, "claim": None, "why": "GRPO's own gain is within noise"}
    if found["mean"]["reached"] is None:
        return {**found, "claim": None, "why": "exact never has it"}
    return {**found, "claim": found["mean"]["reached"]["share"]}


def plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")

    def draw(points: list[dict[str, float]], **style: Any) -> None:
        shown = points[1:]  # the start has no place on a logarithmic axis
        axes.plot([p["seconds"] for p in shown], [p["reward"] for p in shown], **style)

    for method, colour in zip(METHODS, ("#b3541e", "#1e6fb3"), strict=True):
        curves = list(found["runs"][method].values())
        for points in curves:
            draw(points, color=colour, alpha=0.25, marker=".")
        label = f"{method}, mean of {len(curves)}"
        draw(mean_curve(curves), color=colour, linewidth=2, marker=".", label=label)
    axes.axhline(found["start_reward"], color="grey", linestyle=":", label="start")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("held-out reward, greedy answers")
    axes.set_title(found["data"]["val"])
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
    result = found["comparison"]
    if result["claim"] is None:
        print(f"no claim: {result['why']}")
    else:
        print(f"exact has GRPO's last reward after {result['claim']:.1%} of its seconds")

    def share(pair: dict[str, Any], name: str) -> str:
        return f"{pair[name]['share']:.1%}" if pair[name] else "never"

    for name, means in (("reached", "has it after"), ("held", "holds it from")):
        shares = ", ".join(share(each, name) for each in result["by_seed"].values())
        print(f"  {means:13} {share(result['mean'], name)} in the mean; by seed {shares}")
