"""What benchmarks/methods.py trains and asks of: ratings, the pairs that they make, and held-out pairs."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rm_gallery.core.data.samples import Message, Pair
from rm_gallery.core.evaluate.benchmarks import get_benchmark


def read_prompts(path: Path) -> list[list[dict[str, Any]]]:
    """The rows of a file by prompt, in the file's order; only prompts with two responses."""
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for row in get_benchmark("helpsteer2").rows(path):
        by_prompt.setdefault(json.dumps(row["input"]), []).append(row)
    return [rows for rows in by_prompt.values() if len(rows) == 2]


def words(rows: Sequence[dict[str, Any]]) -> int:
    """Of the prompt and the longer response."""
    prompt = sum(len(message["content"].split()) for message in rows[0]["input"])
    return prompt + max(len(row["output"]["content"].split()) for row in rows)


def to_pairs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both orders of the preference that two ratings make."""
    first, second = rows
    gap = int(first["helpfulness"]) - int(second["helpfulness"])
    name = first["unique_id"]
    pair = Pair(
        tuple(Message(message["role"], message["content"]) for message in first["input"]),
        first["output"]["content"],
        second["output"]["content"],
        "A" if gap > 0 else "B" if gap < 0 else "tie",
        max(-3, min(3, -gap)),
        f"{name}-forward",
        metadata={"group": name, "order": "forward"},
    )
    return [pair.to_row(), {**pair.swap().to_row(), "unique_id": f"{name}-swapped"}]


def to_item(rows: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A line of `--benchmark jsonl`."""
    return {
        "unique_id": rows[0]["unique_id"],
        "messages": rows[0]["input"],
        "responses": [row["output"]["content"] for row in rows],
        "labels": [int(row["helpfulness"]) for row in rows],
        "tags": {"length": "short" if words(rows) <= limit else "long"},
    }


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def prepare(data: Path, work: Path, limit: int, most_words: int) -> dict[str, Any]:
    """Write ratings.jsonl, pairs.jsonl and heldout.jsonl to `work`, and say what is in them."""

    def file(part: str) -> Path:
        found = [path for path in (data / f"{part}.jsonl", data / f"{part}.jsonl.gz") if path.is_file()]
        if not found:
            raise SystemExit(
                f"{data} holds no {part}.jsonl and no {part}.jsonl.gz: --data is HelpSteer2's folder"
            )
        return found[0]

    fitting = [rows for rows in read_prompts(file("train")) if words(rows) <= most_words]
    random.Random(0).shuffle(fitting)
    chosen, held_out = fitting[:limit], read_prompts(file("validation"))
    if not chosen or not held_out:
        raise SystemExit(
            f"no prompt with two responses of at most {most_words} words in {data}: raise --words"
        )
    work.mkdir(parents=True, exist_ok=True)
    write_lines(work / "ratings.jsonl", [row for rows in chosen for row in rows])
    write_lines(work / "pairs.jsonl", [row for rows in chosen for row in to_pairs(rows)])
    items = [to_item(rows, most_words) for rows in held_out]
    write_lines(work / "heldout.jsonl", items)
    untied = [item for item in items if len(set(item["labels"])) > 1]
    names = ("ratings.jsonl", "pairs.jsonl", "heldout.jsonl")
    return {
        "words": most_words,
        "train_prompts": len(chosen),
        "train_untied": sum(len({row["helpfulness"] for row in rows}) > 1 for rows in chosen),
        "held_out_pairs": len(items),
        "held_out_untied": len(untied),
        "held_out_untied_short": sum(item["tags"]["length"] == "short" for item in untied),
        "sha256": {name: hashlib.sha256((work / name).read_bytes()).hexdigest()[:16] for name in names},
    }
