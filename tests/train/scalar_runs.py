"""Small data that a scalar model can learn, and runs on it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rm_gallery.core.data.samples import Message, Pair, Sample
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import train_local
from rm_gallery.core.train.run_folder import RunFolder

VOWELS, REST = "aeiou", "bcdfg"


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


class Broken(BaseException):
    """What ends a run in the middle; no `except Exception` catches it."""


def assert_same_run(one: Path, other: Path, files: Sequence[str] = ("model.safetensors",)) -> None:
    """The same figures at every step, and the same newest checkpoint to the last bit."""
    assert [comparable(record) for record in records(one)] == [
        comparable(record) for record in records(other)
    ]
    for name in files:
        a, b = ((run / "actor_latest" / name).read_bytes() for run in (one, other))
        assert a == b, name


def assert_resumes(
    settings: dict[str, Any], folder: Path, files: Sequence[str] = ("model.safetensors",)
) -> None:
    """A run that is broken off behind the line of step 3 and goes on is the same as an unbroken one.

    In this process: that a real kill does the same is tested of GRPO, by a signal (`test_local_grpo.py`).
    """
    whole, broken, config = folder / "whole", folder / "broken", check_config(settings)
    train_local(config, path=whole)
    append = RunFolder.append

    def breaking(self: RunFolder, record: dict[str, Any]) -> None:
        append(self, record)
        if record["step"] >= 3:
            raise Broken

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "append", breaking)
        with pytest.raises(Broken):
            train_local(config, path=broken)
    assert max(record["step"] for record in records(broken)) == 3 < settings["train"]["max_steps"]
    train_local(config, path=broken, resume=True)
    assert_same_run(whole, broken, files)


def piped(folder: Path, inputs: list[Any], **options: Any) -> list[Any]:
    """What transformers' own pipeline gives for each input, with its defaults."""
    import torch
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu", dtype=torch.float32)
    found = [classify(text, **options) for text in inputs]
    return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in found]
