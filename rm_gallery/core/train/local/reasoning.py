"""Sampling reasonings: where one ends, and what the verdicts behind it are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.reasonings import Reasoning
from rm_gallery.core.tasks import Task
from rm_gallery.core.templates.base import THINK, closes

_CLOSING = f"</{THINK}>"
_TOKENS = len(_CLOSING)
"""That a closing tag has at most: one for each of its bytes."""

Tokens = tuple[int, ...]


class Reasoner:
    """Lets a judge write its reasonings, and no verdict.

    Args:
        limit: tokens of reasoning and verdict together; room for the longest verdict is kept.

    Raises:
        ConfigError: there is no room for a reasoning.
    """

    def __init__(self, judge: LocalJudge, task: Task[Any], limit: int) -> None:
        self.judge = judge
        self.task = task
        longest = max(map(len, judge.verdicts_behind(task, _CLOSING)))
        self.room = limit - longest
        if self.room < 1:
            raise ConfigError(
                f"rollout.max_response_length is {limit}, and the verdict alone has up to {longest} tokens: raise it"
            )
        self._behind: dict[str, tuple[Tokens, ...]] = {}

    def sample(
        self, model: Any, prompts: Sequence[Tokens], *, n: int, seed: int, autocast: Any
    ) -> list[list[Reasoning]]:
        """For each of distinct prompts, `n` reasonings by the model as it is; they depend on the seed and the prompt."""
        judge = LocalJudge(model, self.judge.tokenizer, batch_size=len(prompts) * n, autocast=autocast)
        was_training = model.training
        model.eval()
        try:
            written = judge.sample(
                prompts, samples=n, max_new_tokens=self.room, seed=seed, until=self.ends_here
            )
            ends = judge.ends
        finally:
            model.train(was_training)
        return [[self.read(row, ends) for row in rows] for rows in written]

    def ends_here(self, tokens: Sequence[int]) -> bool:
        """Whether the last token closes the reasoning."""
        return closes(self._text(tokens[-_TOKENS:]))

    def read(self, tokens: Sequence[int], ends: set[int]) -> Reasoning:
        """The reasoning that `tokens`, padded behind their end, begin with."""
        for length, token in enumerate(tokens, start=1):
            if token in ends:
                return Reasoning(tuple(tokens[:length]))
            last = tokens[max(0, length - _TOKENS) : length]
            if self.ends_here(last):
                return Reasoning(tuple(tokens[:length]), self.verdicts(self._text(last)))
        return Reasoning(tuple(tokens))

    def verdicts(self, end: str) -> tuple[Tokens, ...]:
        """The texts of all verdicts behind a reasoning of which `end` is the end."""
        *_, tag = re.finditer(re.escape(_CLOSING), end, re.IGNORECASE)
        end = end[tag.start() :]
        if end not in self._behind:
            self._behind[end] = tuple(map(tuple, self.judge.verdicts_behind(self.task, end)))
        return self._behind[end]

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.judge.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text
