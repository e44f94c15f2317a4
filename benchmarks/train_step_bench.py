"""What benchmarks/train_step.py measures of one configuration, and the figures it makes of it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from train_step_counts import Shape, ideal_speed_up, largest_divisor, step_operations
from train_step_process import Failed, System, run_verl
from train_step_rows import write_rows

SYSTEMS = ("ours", "trl", "trl_bare", "verl", "exact")
KL = 0.001
"""Of all systems: rm_gallery's default."""
UNCOUNTED = {"cpu": 1, "gpu": 3}
"""First steps, which allocate; a GPU's kernels are compiled then, again where sizes turn out to vary."""
Settings = dict[str, Any]


def yaml_of(system: str, one: Settings, given: argparse.Namespace, rows: Path, micro: int | None) -> Settings:
    """The training YAML of one system; they differ in nothing but what makes the system. `micro` is in samples."""
    settings: Settings = {
        "task": "pointwise",
        "method": "exact" if system == "exact" else "grpo",
        "model": {
            "path": given.model,
            "dtype": one["dtype"],
            "attention": one["attention"],
            "shared_prefix": system != "trl",
            "gradient_checkpointing": given.checkpoint_ours and system in ("ours", "exact"),
        },
        "data": {"train": str(rows), "max_prompt_length": one["prompt"]},
        "train": {
            "batch_size": one["prompts"],
            "mini_batch_size": one["prompts"],
            "micro_batch_size": given.micro_ours if system in ("ours", "exact") else None,
            # more than are taken, so that none is the last, which is saved; of verl saving is no part of the step
            "max_steps": one["repeats"] + (1 if system == "verl" else max(UNCOUNTED.values()) + 1),
            "eval_every": None,
            "save_every": None,
            "learning_rate": 1.0e-6,
        },
        "rollout": {"n": one["group"], "max_response_length": one["verdict"]},
        "loss": {"kl_coef": KL},
    }
    if system == "trl":
        settings["train"]["micro_batch_size"] = largest_divisor(one["prompts"], (micro or 1) / one["group"])
    if system == "verl":
        settings["verl"] = {"trainer.device": "cpu", "actor_rollout_ref.rollout.ignore_eos": True}
    return settings


class Bench:
    """What all configurations of a run share."""

    def __init__(self, given: argparse.Namespace, results: Settings, work: Path) -> None:
        self.given, self.results, self.work = given, results, work
        self.environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        if given.threads:
            threads = str(given.threads)
            self.environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self.started = 0

    def rows(self, one: Settings) -> Path:
        path = self.work / f"rows-{one['prompts']}x{one['prompt']}.jsonl"
        if not path.is_file():
            write_rows(path, self.given.model, one["prompts"], one["prompt"])
        return path

    def start(self, system: str, one: Settings, micro: int | None, limit: float | None = None) -> System:
        self.started += 1
        spec: Settings = {"system": system, "dtype": one["dtype"], "memory_limit_gib": limit}
        if system == "product":
            spec["side"] = self.given.side
        else:
            spec["settings"] = yaml_of(system, one, self.given, self.rows(one), micro)
            spec["micro_batch_samples"] = micro
        return System(spec, self.work / f"{self.started}-{system}", self.environment)

    def micro_batch(self, one: Settings) -> int:
        """TRL's samples per pass: tuned once a dtype at the asked sizes, elsewhere as many tokens."""
        given = self.given
        asked = {**one, **{name: getattr(given, name) for name in ("prompt", "prompts", "group", "verdict")}}
        at = {name: value for name, value in asked.items() if name != "repeats"}
        known = next((each for each in self.results["tuned"] if each["at"] == at), None)
        samples = asked["prompts"] * asked["group"]
        sizes = sorted({largest_divisor(samples, size) for size in given.micro_batches})
        if known is None:
            known = {"at": at, **self.tune(asked, sizes)}
            self.results["tuned"].append(known)
            write_results(given.out, self.results)
        tokens = known["best"] * (asked["prompt"] + asked["verdict"])
        return largest_divisor(one["prompts"] * one["group"], tokens / (one["prompt"] + one["verdict"]))

    def tune(self, asked: Settings, sizes: Sequence[int]) -> Settings:
        """One step of bare TRL at each micro-batch, from the smallest on, until one is over the memory limit."""
        if len(sizes) == 1:
            return {"best": sizes[0], "tried": {}}
        tried: dict[str, Settings] = {}
        for size in sizes:
            system = None
            try:
                system = self.start("trl_bare", asked, size, self.given.memory_limit)
                seconds = system.step()["seconds"]
                tried[str(size)] = {"seconds": seconds, "peak_gib": system.finish()}
            except Failed as failed:
                tried[str(size)] = {"failed": str(failed)}
                break
            finally:
                if system:
                    system.stop()
            print(f"  trl_bare, {size} samples a pass: {seconds:.1f} s", file=sys.stderr, flush=True)
        done = {int(size): each["seconds"] for size, each in tried.items() if "seconds" in each}
        if not done:
            raise SystemExit("no micro-batch of trl_bare fits: lower --micro-batches or raise --memory-limit")
        return {"best": min(done, key=done.get), "tried": tried}

    def measure(self, one: Settings, names: Sequence[str]) -> Settings:
        """All named systems on one configuration."""
        stepped = [name for name in names if name != "verl"]
        micro = self.micro_batch(one) if {"trl", "trl_bare"} & set(stepped) else None
        found: dict[str, list[Settings]] = {name: [] for name in ("product", *stepped)}
        ready: dict[str, Settings] = {}
        peaks: dict[str, float] = {}
        failed: dict[str, str] = {}
        running: dict[str, System] = {}

        def end(name: str) -> None:
            if name not in running:
                return
            try:
                peaks[name] = running.pop(name).finish()
            except Failed as why:
                failed[name] = str(why)

        def take(name: str, number: int) -> None:
            if name in failed:
                return
            try:
                if name not in running:
                    running[name] = self.start(name, one, micro)
                    ready[name] = running[name].ready
                    gpu = (ready[name].get("versions") or {}).get("gpu")
                    for _ in range(UNCOUNTED["gpu" if gpu else "cpu"]):
                        running[name].step()
                answer = running[name].step()
                wrong = answer.get("answer_tokens")
                if wrong is not None and wrong != one["verdict"]:
                    raise Failed(f"{name} drew {wrong:g} tokens a sample in place of {one['verdict']}")
                found[name].append(answer)
                print(f"  {number + 1} {name:9}{answer['seconds']:9.2f} s", file=sys.stderr, flush=True)
            except Failed as why:
                failed[name] = str(why)
                print(f"  {why}", file=sys.stderr)
                if name in running:
                    running.pop(name).stop()

        try:
            for name, number in self.turns(list(found), one["repeats"]):
                take(name, number)
                if self.given.one_after_another and number == one["repeats"] - 1 and name != "product":
                    end(name)
            for name in list(running):
                end(name)
        finally:
            for system in running.values():
                system.stop()
        if "product" in failed:
            raise SystemExit(f"without the matrix product there is no peak: {failed['product']}")
        peak = statistics.median(each["operations_per_second"] for each in found.pop("product"))
        systems: dict[str, Settings] = {name: {"failed": why} for name, why in failed.items()}
        shape = next((Shape(**each["shape"]) for each in ready.values() if "shape" in each), None)
        for name, answers in found.items():
            if name not in failed:
                tree = ready[name]["tree_tokens"]
                systems[name] = {
                    **figures(answers, one, shape, peak, tree),
                    "peak_gib": round(peaks[name], 2),
                    "versions": ready[name]["versions"],
                }
        for name in {"trl", "trl_bare"} & set(systems):
            whole = largest_divisor(one["prompts"], micro / one["group"]) * one["group"]
            systems[name]["micro_batch_samples"] = micro if name == "trl_bare" else whole
        if "verl" in names:
            systems["verl"] = self.verl(one, shape, peak)
        systems = {name: systems[name] for name in SYSTEMS if name in systems}
        ideal = ideal_speed_up(one["prompt"], one["group"], one["verdict"])
        return {**one, "ideal_speed_up": ideal, "matrix_product_per_second": peak, "systems": systems}

    def turns(self, names: list[str], repeats: int) -> Iterator[tuple[str, int]]:
        """Each system's step in each round, or all steps of one system before the next; a product before every step."""
        product, *systems = names
        if self.given.one_after_another:
            steps = [(name, number) for name in systems for number in range(repeats)]
        else:
            steps = [(name, number) for number in range(repeats) for name in systems]
        for name, number in steps:
            yield from ((product, number), (name, number))

    def verl(self, one: Settings, shape: Shape | None, peak: float) -> Settings:
        settings = yaml_of("verl", one, self.given, self.rows(one), None)
        self.started += 1
        try:
            run = run_verl(
                self.given.verl_python, settings, self.work / f"{self.started}-verl", self.environment
            )
            counted = run["steps"][1:]
            if len(counted) != one["repeats"]:
                raise Failed(f"verl wrote {len(run['steps'])} steps in place of {one['repeats'] + 1}")
            if wrong := {s["answer_tokens"] for s in counted} - {None, float(one["verdict"])}:
                raise Failed(f"verl drew {min(wrong):g} tokens a sample in place of {one['verdict']}")
        except Failed as why:
            print(f"  {why}", file=sys.stderr)
            return {"failed": str(why)}
        return {**figures(counted, one, shape, peak, None), "peak_gib": round(run["peak_gib"], 2)}


def figures(
    answers: Sequence[Settings], one: Settings, shape: Shape | None, peak: float, tree: int | None
) -> Settings:
    """Medians over the steps. `tree`: of `exact`, the tokens behind each prompt."""
    seconds = statistics.median(each["seconds"] for each in answers)
    group, verdict = (one["group"], one["verdict"]) if tree is None else (1, tree + 1)
    found: Settings = {
        "seconds": seconds,
        "all_seconds": [each["seconds"] for each in answers],
        "phases": {
            name: statistics.median(each["phases"].get(name, 0.0) for each in answers)
            for name in dict.fromkeys(name for each in answers for name in each["phases"])
        },
        "tokens_per_second": one["prompts"] * group * (one["prompt"] + verdict) / seconds,
    }
    if any("gpu_peak_gib" in each for each in answers):
        found["gpu_peak_gib"] = max(each["gpu_peak_gib"] for each in answers)
    if shape is not None:
        found["operations"] = step_operations(
            shape, one["prompts"], one["prompt"], group, verdict, reference=KL > 0
        )
        found["mfu"] = found["operations"] / seconds / peak
    return found


def write_results(path: Path, results: Settings) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
