"""Configurations, and runs whose seconds are made of known rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rm_gallery.core.estimate import Transformer, given_lengths, read_model
from rm_gallery.core.estimate.work import step_work
from rm_gallery.core.train.config import TrainConfig, check_config
from rm_gallery.core.train.run_folder import RunFolder

SMALL = Transformer("small", 64, 4, 4, 2, 16, 128, 1000, tied=True)


def config(**changes: Any) -> TrainConfig:
    """A configuration with dotted changes, as `train__batch_size=8`."""
    values: dict[str, Any] = {
        "method": "grpo",
        "model": {"path": "none"},
        "data": {"train": "none.jsonl"},
        "train": {"batch_size": 4, "mini_batch_size": None},
        "rollout": {"n": 4, "max_response_length": 16},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            values.setdefault(section, {})[key] = value
        else:
            values[section] = value
    return check_config(values)


def write_run(
    folder: Path,
    model: Path,
    prompts: list[int],
    *,
    method: str = "grpo",
    forward: float = 2e9,
    update: float = 1e9,
    decode: float = 1e8,
    answer: int = 10,
    rows: Path = Path("none.jsonl"),
    judged: float | None = None,
) -> Path:
    """A run of one step for each of `prompts`, the tokens of its prompts; every step went at the same rates.

    With `judged`, its held-out rows, which are `rows` like those it trained on, were judged in so many seconds.
    """
    settings = config(method=method, model__path=str(model), data__train=str(rows), data__val=str(rows))
    run = RunFolder.create(settings, folder)
    n = settings.rollout.n if method == "grpo" else 1
    for step, prompt in enumerate(prompts, start=1):
        rates = {"forward": forward, "update": update}
        parts = {
            work.phase: work.read / decode if work.kind == "decode" else work.operations / rates[work.kind]
            for work in step_work(settings, read_model(str(model)), given_lengths(4, prompt, answer))
            if work.kind != "optimizer"
        }
        took = sum(parts.values())
        record = {"step": step, "split": "train", "timing_s/step": took, "response_length/mean": answer}
        record["tokens_per_second"] = settings.train.batch_size * n * (prompt + answer) / took
        if method == "grpo":
            record["timing_s/generate"] = parts["prefill"] + parts["decode"]
            record["timing_s/log_probs"] = parts["log_probs"]
            record["timing_s/update"] = parts["update"]
        run.append(record)
    if judged:
        run.append({"step": len(prompts), "split": "val", "seconds": judged})
    return folder


def write_rows(path: Path, count: int, words: int = 20) -> Path:
    """Rated responses as `rmg data convert` writes them."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            row = {
                "unique_id": str(i),
                "input": [{"role": "user", "content": f"question {i} " * words}],
                "output": {"content": "an answer", "label": {"helpfulness": i % 5}},
            }
            file.write(json.dumps(row) + "\n")
    return path
