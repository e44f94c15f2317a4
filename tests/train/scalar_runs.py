"""Small data that a scalar model can learn, and runs on it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from rm_gallery.core.data.samples import Message, Pair, Sample

VOWELS, REST = "aeiou", "bcdfg"
SCRIPT = """
import sys, yaml, torch
torch.set_num_threads(1)
from pathlib import Path
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import train_local
settings, run, resume = yaml.safe_load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "resume"
train_local(check_config(settings), path=run, resume=resume)
"""


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_pairs(path: Path, number: int, *, ties: bool = False, wrong: bool = False, start: int = 0) -> Path:
    """Both orders of pairs in which the response of vowels is better.

    Args:
        ties: every third is a tie between two of consonants.
        wrong: every fourth is labelled the other way round.
    """
    rows = []
    for i in range(start, start + number):
        draw = random.Random(i)
        good, bad, other = ("".join(draw.choices(kind, k=4 + i % 3)) for kind in (VOWELS, REST, REST))
        strength = 0 if ties and i % 3 == 0 else 1 + i % 3
        if wrong and i % 4 == 0:
            good, bad = bad, good
        pair = Pair(
            (Message("user", f"question {'abc' * (i % 4)} {i}"),),
            good if strength else other,
            bad,
            "A" if strength else "tie",
            -strength,
            f"{i}-forward",
            metadata={"group": f"g{i}", "order": "forward"},
        )
        rows += [pair.to_row(), {**pair.swap().to_row(), "unique_id": f"{i}-swapped"}]
    return write_lines(path, rows)


def write_ratings(path: Path, number: int, *, start: int = 0) -> Path:
    """Two responses to each prompt, helpful by their exclamation marks and verbose by their length; some unlabelled."""
    rows = []
    for i in range(start, start + number):
        marks, length = i % 5, (i * 3) % 5
        labels = {"helpfulness": marks, "verbosity": length}
        if i % 7 == 0:
            del labels["verbosity"]
        text = "!" * (3 * marks) + "x" * (4 * length)
        rows.append(Sample((Message("user", f"question {i // 2}"),), f"r{text}", labels, f"row-{i}").to_row())
    return write_lines(path, rows)


def records(run: Path, split: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if split in (None, line["split"])]


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """Without what a clock or the machine says."""
    return {
        key: value
        for key, value in record.items()
        if not key.startswith(("timing_s", "memory")) and key not in ("tokens_per_second", "seconds")
    }


def killed_and_resumed(settings: dict[str, Any], run: Path, *, steps: int) -> None:
    """Train in a process of its own, kill it after step 3 of `steps`, and go on in another."""
    command = [sys.executable, "-c", SCRIPT, yaml.safe_dump(settings), str(run)]
    process = subprocess.Popen([*command, "start"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "metrics.jsonl").is_file() and any(record["step"] >= 3 for record in records(run)):
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= max(record["step"] for record in records(run)) < steps, "it was killed on the way"
    done = subprocess.run([*command, "resume"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def piped(folder: Path, inputs: list[Any], **options: Any) -> list[Any]:
    """What transformers' own pipeline gives for each input, with its defaults."""
    import torch
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu", dtype=torch.float32)
    found = [classify(text, **options) for text in inputs]
    return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in found]
