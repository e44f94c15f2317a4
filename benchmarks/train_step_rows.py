"""Rows whose prompts have exactly as many tokens as asked, from the texts of the shipped sample."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.weights import load_tokenizer
from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.gallery.quickstart import SAMPLE

FILLERS = (" a", " I", ".", " the", "a", "!")
"""Each is one token in most vocabularies; which one is, behind the text at hand, is tried."""


def words_of_sample(first: int) -> Iterator[str]:
    """The words of the sample's responses from line `first` on, going round."""
    with (SAMPLE / "train.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line)["response"] for line in file]
    start = first % len(lines)
    for text in itertools.cycle(lines[start:] + lines[:start]):
        yield from text.split()


def write_rows(path: Path, model: str, prompts: int, length: int) -> None:
    """`prompts` rows of the task pointwise as JSON lines, each of `length` tokens with rubric and chat template.

    Real words, so that the tokenizer's work and the model's distribution are those of text; cut to one length, so that
    padding is no part of the comparison.
    """
    judge, task = LocalJudge(None, load_tokenizer(model)), PointwiseTask()

    def count(row: dict[str, Any]) -> int:
        return len(judge.tokenizer(judge.render(task.messages(row)), add_special_tokens=False)["input_ids"])

    rows = [exact_row(i, length, count) for i in range(prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def exact_row(number: int, length: int, count: Callable[[dict[str, Any]], int]) -> dict[str, Any]:
    """The row with as many of the sample's words as fit, and one-token words up to the length.

    Raises:
        SystemExit: the rubric alone is longer, or no filler meets the length.
    """
    source = words_of_sample(31 * number)
    words = [next(source) for _ in range(length)]  # a word is a token or more

    def row(response: str) -> dict[str, Any]:
        return {
            "unique_id": f"row-{number}",
            "data_source": "everyday_judgments",
            "input": [{"role": "user", "content": f"{number} {' '.join(words[:4])}"}],
            "output": {"content": response, "label": {"helpfulness": number % 5}},
        }

    if (least := count(row("a"))) > length:
        raise SystemExit(
            f"rubric and chat template alone have {least} tokens: --prompt must be {least} or more"
        )
    low, high = 0, len(words)
    while low < high:  # the most words that fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(row(" ".join(words[:middle]))) <= length else (low, middle - 1)
    for kept in range(low, max(-1, low - 8), -1):
        for filler in FILLERS:
            text = " ".join(words[:kept])
            while (now := count(row(text))) < length:
                text += filler * max(1, (length - now) // 2)
            if now == length:
                return row(text)
    raise SystemExit(f"no text of exactly {length} tokens was found for this tokenizer: try another --prompt")
