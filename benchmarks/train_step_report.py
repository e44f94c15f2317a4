"""The table and the plot of benchmarks/train_step.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train_step_counts import ideal_speed_up

PHASES = ("generate", "log_probs", "update")
LABELS = {"trl_bare": "plain TRL", "trl": "TRL in our order", "verl": "verl on the CPU"}


def show(results: dict[str, Any]) -> None:
    """Print each configuration; the last column is a system's seconds over ours."""
    for one in results["configurations"]:
        peak = one["matrix_product_per_second"] / 1e9
        print(
            f"\n{results['model']}, {one['dtype']}: {one['prompts']} prompts of {one['prompt']} tokens x {one['group']} "
            f"samples of {one['verdict']}; tokens predict {one['ideal_speed_up']:.2f}x; peak {peak:.0f} GFLOP/s"
        )
        names = "".join(f"{name:>11}" for name in PHASES)
        print(f"{'':10}{'seconds':>9}{names}{'tokens/s':>10}{'MFU':>7}{'GiB':>7}{'to ours':>9}")
        ours = one["systems"].get("ours", {}).get("seconds")
        for name, system in one["systems"].items():
            if "failed" in system:
                print(f"{name:10} failed: {system['failed']}")
                continue
            phases = "".join(
                f"{system['phases'][phase]:11.2f}" if phase in system["phases"] else f"{'':>11}"
                for phase in PHASES
            )
            mfu = f"{system['mfu']:7.1%}" if "mfu" in system else f"{'?':>7}"
            memory = system.get("gpu_peak_gib", system["peak_gib"])
            gain = f"{system['seconds'] / ours:8.2f}x" if ours and name != "exact" else ""
            print(
                f"{name:10}{system['seconds']:9.2f}{phases}{system['tokens_per_second']:10,.0f}{mfu}"
                f"{memory:7.1f}{gain}"
            )
        if "exact" in one["systems"]:
            print("exact draws no samples: not the same work, so it is not compared")


def by_group(results: dict[str, Any]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Configurations that differ in nothing but the group, where ours was measured; the longest such row first.

    Of one that was measured twice, that with more steps.
    """
    rows: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
    for one in sorted(results["configurations"], key=lambda one: one["repeats"]):
        if "seconds" in one["systems"].get("ours", {}):
            key = tuple(one[name] for name in ("dtype", "prompt", "prompts", "verdict", "attention"))
            rows.setdefault(key, {})[one["group"]] = one
    ordered = sorted(rows.items(), key=lambda item: -len(item[1]))
    return {key: [row[group] for group in sorted(row)] for key, row in ordered}


def plot(results: dict[str, Any], path: Path) -> None:
    """Speed-up of ours against group size, with the line that tokens predict."""
    rows = by_group(results)
    if not rows:
        print("no configuration with ours: no plot")
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    most = len(next(iter(rows.values())))
    figure, axes = plt.subplots(figsize=(7, 4.5))
    lines = set()
    for (dtype, prompt, _, verdict, attention), row in rows.items():
        if len(row) < most:
            continue
        groups, kind = [one["group"] for one in row], f", {attention}" if attention else ""
        if (prompt, verdict) not in lines:
            lines.add((prompt, verdict))
            ideal = [ideal_speed_up(prompt, group, verdict) for group in groups]
            axes.plot(groups, ideal, "k.--", label=f"tokens: ({prompt}+{verdict})G / ({prompt}+{verdict}G)")
        for system, label in LABELS.items():
            points = [
                (one["group"], one["systems"][system]["seconds"] / one["systems"]["ours"]["seconds"])
                for one in row
                if "seconds" in one["systems"].get(system, {})
            ]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", label=f"{label}, {dtype}{kind}")
    shown = sorted({one["group"] for row in rows.values() if len(row) == most for one in row})
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(group) for group in shown])
    axes.set_xlabel("samples per prompt (G)")
    axes.set_ylabel("seconds of a step over ours")
    axes.set_title(f"{results['model']}: the shared prompt's speed-up", fontsize=10)
    note = "The dashed line leaves out decoding token by token, the optimizer, attention, and differing shares of the peak."
    figure.text(0.01, 0.01, note, fontsize=6.5)
    axes.legend(fontsize=8)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
