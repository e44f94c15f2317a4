"""The runs that benchmarks/exact.py and rewards.py compare: their settings, rows and rates, trained and judged once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from methods_rows import write_lines

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.evaluate import score_outputs
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.fingerprint import model_fingerprint
from rm_gallery.core.models.weights import load_tokenizer
from rm_gallery.core.train.config import TrainConfig, check_config
from rm_gallery.core.train.local import train_local
from rm_gallery.core.train.log import read_log

TUNED = 1000
"""The first seed of the runs that choose a learning rate."""
FIGURES = ("reward/mean", "accuracy", "kappa", "parse_rate")


def task_of(arguments) -> dict[str, Any]:
    """The task's keys in a training YAML; each of `--dimensions` counts alike."""
    if arguments.dimensions is None:
        return {"task": arguments.task}
    return {"task": "multi_dimension", "dimensions": dict.fromkeys(arguments.dimensions, 1.0)}


def settings_of(method: str, rate: float, seed: int, files: dict[str, Path], arguments) -> TrainConfig:
    """The training YAML; the two methods differ in nothing but what the method itself asks for."""
    steps, each = {
        "grpo": (arguments.steps, arguments.grpo_eval_every),
        "exact": (arguments.exact_steps or arguments.steps, arguments.exact_eval_every),
    }[method]
    return check_config(
        {
            **task_of(arguments),
            "method": method,
            "model": {"path": arguments.model, "dtype": arguments.dtype},
            "prompt": {"instruction": arguments.instruction},
            "data": {
                "train": str(files["train"]),
                "val": str(files["val"]) if "val" in files else None,
                "max_prompt_length": arguments.max_prompt_length,
                "shuffle": arguments.shuffle,
            },
            "train": {
                "batch_size": arguments.batch_size,
                "mini_batch_size": arguments.batch_size,
                "micro_batch_size": arguments.micro_batch_size,
                "max_steps": steps,
                "learning_rate": rate,
                "eval_every": each,
                "save_every": None,
                "keep_checkpoints": 1,
                "seed": seed,
            },
            "rollout": {
                "n": arguments.samples,
                "max_response_length": arguments.max_response_length,
                "eval_batch_size": arguments.eval_batch_size,
            },
            "reward": {"name": arguments.reward},
            "loss": {"kl_coef": arguments.kl_coef, "advantage": arguments.advantage},
        }
    )


def trained(name: str, config: TrainConfig, work: Path, files: dict[str, Path]) -> Path:
    """The folder of a finished run, trained now where it is not there, or was of another model or other `files` of rows:
    those it trains on, and those it is judged by, then or later (`once`)."""
    folder = work / name
    done = folder / "finished.json"
    asked = {
        "config": config.model_dump(mode="json"),
        "rows": {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()},
        "model": model_fingerprint(config.model.path),
    }
    if done.is_file() and json.loads(done.read_text()) == asked:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    train_local(config, path=folder, describe=name)
    for state in folder.rglob("optimizer.pt"):  # two thirds of a run's bytes, and it is not gone on with
        state.unlink()
    done.write_text(json.dumps(asked))
    return folder


def curve(folder: Path) -> list[dict[str, float]]:
    """Held-out figures by step, with the seconds of training up to it."""
    points, seconds = [], 0.0
    for record in read_log(folder / "metrics.jsonl"):
        if record["split"] == "train":
            seconds += record["timing_s/step"]
        else:
            figures = {name.split("/")[0]: record.get(name) for name in FIGURES}
            points.append({"step": record["step"], "seconds": seconds, **figures})
    return points


def fitting(rows: list[dict[str, Any]], task, arguments) -> list[dict[str, Any]]:
    """Those whose prompt is not too long: training leaves the others out, of held-out rows too."""
    judge = LocalJudge(None, load_tokenizer(arguments.model))
    prompts = judge.encode([task.messages(row) for row in rows])
    limit = arguments.max_prompt_length
    return [row for row, prompt in zip(rows, prompts, strict=True) if len(prompt) <= limit]


def split(rows: list[dict[str, Any]], task, prompts: int) -> tuple[list, list]:
    """(the rows to train on, those of `prompts` prompts to choose the learning rate by)."""
    names = sorted({task.cluster(row) for row in rows})  # hashes: their order is as good as random
    if len(names) <= prompts:
        raise SystemExit(f"{len(names)} prompts are too few to set {prompts} apart: lower --tune-prompts")
    apart = set(names[:prompts])
    kept = [row for row in rows if task.cluster(row) not in apart]
    return kept, [row for row in rows if task.cluster(row) in apart]


def prepare(task, arguments) -> tuple[dict[str, list], dict[str, Path]]:
    """The rows to train on, to choose learning rates by (`tune`) and held out (`val`), and their files under `--work`."""
    every, held_out = (
        fitting(load_rows(path, arguments.limit), task, arguments)
        for path in (arguments.train, arguments.val)
    )
    kept, apart = split(every, task, arguments.tune_prompts)
    rows = {"train": kept, "tune": apart, "val": held_out}
    print(f"{len(kept)} rows to train on, {len(apart)} to choose by, {len(held_out)} held out", flush=True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    files = {name: arguments.work / f"{name}.jsonl" for name in rows}
    for name, part in rows.items():
        write_lines(files[name], part)
    return rows, files


def tuning(method: str, rate: float, files: dict[str, Path], arguments) -> dict[str, TrainConfig]:
    """The runs that tell what a rate is worth, by name."""
    return {
        f"tune-{method}-{rate:g}-{seed}": settings_of(method, rate, seed, files, arguments)
        for seed in range(TUNED, TUNED + arguments.tune_seeds)
    }


def train_at_once(methods: Sequence[str], files: dict[str, Path], arguments) -> None:
    """Train what chooses the rates, `--jobs` runs at a time: their seconds are not asked for."""
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        started = [
            pool.submit(trained, name, config, arguments.work, files)
            for method in methods
            for rate in sorted(arguments.grid)
            for name, config in tuning(method, rate, files, arguments).items()
        ]
        for run in started:
            run.result()


def warm_up(methods: Sequence[str], files: dict[str, Path], arguments) -> None:
    """Two steps of each method, which nothing is made of: a GPU's kernels are compiled then."""
    for method in methods:
        config = settings_of(method, 1e-6, 0, {"train": files["train"]}, arguments)
        short = config.model_copy(update={"train": config.train.model_copy(update={"max_steps": 2})})
        folder = arguments.work / f"warm-up-{method}"
        shutil.rmtree(folder, ignore_errors=True)  # in this process nothing is compiled yet
        train_local(short, path=folder, describe=folder.name)


def tune(method: str, files: dict[str, Path], arguments, *, early: bool = False) -> dict[str, Any]:
    """The learning rate with the highest mean reward on the prompts set apart, the smallest where several are.

    The reward is that after the last step, or with `early` the mean over the run, which is higher where it comes sooner.
    """
    if len(arguments.grid) == 1:
        return {"reward": {}, "chosen": arguments.grid[0], "at_edge": False}
    found = {}
    for rate in sorted(arguments.grid):
        judged = []
        for name, config in tuning(method, rate, files, arguments).items():
            folder = trained(name, config, arguments.work, files)
            judged.append(curve(folder)[1 if early else -1 :])
        found[rate] = statistics.fmean(point["reward"] for points in judged for point in points)
        seconds = statistics.median(points[-1]["seconds"] for points in judged)
        print(f"  {method} at {rate:g}: reward {found[rate]:.4f} after {seconds:.0f} s", flush=True)
    best = max(found, key=lambda rate: found[rate])
    earned = {f"{rate:g}": value for rate, value in found.items()}
    return {"reward": earned, "chosen": best, "at_edge": best in (min(found), max(found))}


def rewards(model: str | Path, rows: list[dict[str, Any]], task, arguments) -> list[float]:
    """What each held-out row's greedy answer earns."""
    judge = LocalJudge.load(model, dtype=arguments.dtype, batch_size=arguments.eval_batch_size)
    texts = judge.generate([task.messages(row) for row in rows], max_new_tokens=arguments.max_response_length)
    return list(score_outputs(task, rows, texts).reward)


def once(file: Path, find: Callable[..., Any], *asked: Any) -> Any:
    """What is in `file` of a run's folder, found once; it goes with the folder when the run is made anew."""
    if not file.is_file():
        file.write_text(json.dumps(find(*asked)))
    return json.loads(file.read_text())
