"""Asking a judge every question once, so that a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import FAILED, Answer, Conversation
from rm_gallery.core.locks import lock

Done = Callable[[dict[int, Answer]], None]


class Ask(Protocol):
    """`Judge.answer` or `Scorer.score` with all but the questions bound."""

    def __call__(self, conversations: Sequence[Conversation], *, done: Done) -> list[Answer]: ...


class Journal:
    """The answers so far, a line each, appended as they come: `{"key": …, "answer": {…}}`.

    A line cut short by a kill is ignored, so its question is asked again. The evaluation deletes the journal
    once `predictions.parquet` holds the same answers: kept, it would answer for a judge whose code has changed.

    Until it is closed, no other process can have it. Raises `ConfigError` where one has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        try:
            lock(self._file, path, "wait for it, or name another folder")
        except ConfigError:
            self._file.close()
            raise
        raw = path.read_bytes()
        for line in raw.splitlines():
            try:
                entry = json.loads(line)
                self.answers[entry["key"]] = Answer.from_dict(entry["answer"])
            except (ValueError, KeyError, TypeError):
                continue
        self._torn = bool(raw) and not raw.endswith(b"\n")

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Record answers by key; they are on the disk when this returns. A failed one is left to be asked again."""
        lines = [
            json.dumps({"key": key, "answer": answer.to_dict()}) + "\n"
            for key, answer in answers.items()
            if not answer.problem.startswith(FAILED)
        ]
        self._file.write(("\n" if self._torn else "") + "".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._torn = False
        self.answers.update(answers)

    def close(self) -> None:
        """An empty one leaves no file."""
        if not self.answers and self.path.exists() and not self.path.stat().st_size:
            self.path.unlink()
        self._file.close()

    def delete(self) -> None:
        """Close it too."""
        self.path.unlink(missing_ok=True)
        self.close()


def ask_all(
    ask: Ask,
    conversations: Sequence[Conversation],
    *,
    identity: str = "",
    journal: Journal | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """The answers to `conversations`, in order; a question that stands there twice is asked once.

    Args:
        ask: the judge, with task and mode bound.
        identity: all that an answer depends on beside its question: model, mode, length. Part of the journal's keys.
        journal: answers already given, and where to put new ones.
        progress: called with the number of conversations answered since the last call.
    """
    keys = [_key(identity, conversation) for conversation in conversations]
    share = dict.fromkeys(keys, 0)
    for key in keys:
        share[key] += 1
    known: dict[str, Answer] = {} if journal is None else journal.answers
    first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))  # where each key stands first
    new = [key for key in share if key not in known]
    if progress and (before := sum(share[key] for key in share if key in known)):
        progress(before)
    given: dict[str, Answer] = {}

    def done(batch: dict[int, Answer]) -> None:
        found = {new[i]: answer for i, answer in batch.items()}
        given.update(found)
        if journal is not None:
            journal.add(found)
        if progress:
            progress(sum(share[key] for key in found))

    if new:
        answers = ask([conversations[first[key]] for key in new], done=done)
        # what a judge gave back without having reported it
        done({i: answer for i, answer in enumerate(answers) if new[i] not in given})
    return [given[key] if key in given else known[key] for key in keys]


def _key(identity: str, conversation: Conversation) -> str:
    content = json.dumps([identity, list(conversation)], sort_keys=True)
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()
