"""Asking a judge about every row, so that a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from rm_gallery.core.data.samples import Row
from rm_gallery.core.evaluate.predictions import Predictions, score_outputs
from rm_gallery.core.evaluate.rows import check_rows
from rm_gallery.core.models.fingerprint import model_fingerprint as model_fingerprint
from rm_gallery.core.tasks import Task

Messages = list[dict[str, str]]


class Judge(Protocol):
    """What evaluation needs of a model; `rm_gallery.core.judge.LocalJudge` is one."""

    def generate(self, conversations: Sequence[Messages], *, max_new_tokens: int) -> list[str]:
        """Answer each conversation greedily, in order."""
        ...


class Journal:
    """The answers so far, a line each, appended as they come: `{"key": …, "text": …}`.

    A line cut short by a kill is ignored, so its question is asked again. The evaluation deletes the journal
    once `predictions.parquet` holds the same answers: kept, it would answer for a judge whose code has changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        raw = path.read_bytes() if path.exists() else b""
        for line in raw.splitlines():
            try:
                entry = json.loads(line)
                self.texts[entry["key"]] = entry["text"]
            except (ValueError, KeyError, TypeError):
                continue
        self._torn = bool(raw) and not raw.endswith(b"\n")

    def add(self, answers: dict[str, str]) -> None:
        """Record answers by key; they are on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"key": key, "text": text}) for key, text in answers.items()]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if self._torn else "") + "".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self.texts.update(answers)

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)


def run_evaluation(
    task: Task[Any],
    judge: Judge,
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
    journal: Journal | None = None,
    fingerprint: str = "",
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Ask the judge the task's question about each row and score the answers.

    Args:
        task: the question, the parser and the reward.
        judge: answers conversations.
        rows: N labelled rows.
        max_new_tokens: where an answer is cut off.
        batch_size: conversations per call; the answers of a call are journalled together.
        journal: answers already given, and where to put new ones.
        fingerprint: what identifies the judge (`model_fingerprint`); part of the journal's keys.
        progress: called with the number of rows answered since the last call.

    Raises:
        ConfigError: the task's verdicts are neither whole scores nor preferences.
        DataError: a row cannot be asked about or has no legal label, before the judge is asked anything.
    """
    check_rows(task, rows)
    conversations = [task.messages(row) for row in rows]
    keys = [_key(fingerprint, max_new_tokens, conversation) for conversation in conversations]
    texts = {} if journal is None else journal.texts
    asked: dict[str, Messages] = dict(zip(keys, conversations, strict=True))
    share = dict.fromkeys(asked, 0)
    for key in keys:
        share[key] += 1
    # Longest first: what does not fit into memory fails at once, and a batch wastes little on padding. The
    # batches are those of a fresh run also where some answers are known, so a resumed run computes the same.
    order = sorted(asked, key=lambda key: (-_length(asked[key]), key))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        new = [key for key in batch if key not in texts]
        if new:
            answers = judge.generate([asked[key] for key in new], max_new_tokens=max_new_tokens)
            found = dict(zip(new, answers, strict=True))
            texts.update(found) if journal is None else journal.add(found)
        if progress:
            progress(sum(share[key] for key in batch))
    return score_outputs(task, rows, [texts[key] for key in keys])


def _key(fingerprint: str, max_new_tokens: int, conversation: Messages) -> str:
    content = json.dumps([fingerprint, max_new_tokens, conversation], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _length(conversation: Messages) -> int:
    return sum(len(message["content"]) for message in conversation)
