"""`ModelJudge`: what judges that hold a language model share, whichever engine runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import MODES, Answer, Conversation, Mode, reasons, too_many
from rm_gallery.core.judge.read import overlong, read, refused, tally, weigh
from rm_gallery.core.models.tree import Tree
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.templates.base import opening, reasoned

_PROBE = "=answer="

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What a judge wrote: `tokens` counts the end of the turn with it; without one it was cut off (`ended`)."""

    text: str
    tokens: int
    ended: bool


class ModelJudge(ABC):
    """A language model with a chat template.

    Args:
        tokenizer: with a chat template.
        reasoning_model: render the chat template with `enable_thinking` on.
        fingerprint: tells the judge from another.
    """

    modes: tuple[Mode, ...] = MODES
    batches = False
    """Whether several threads may ask at once, whose questions the engine brings together."""

    def __init__(self, tokenizer: Any, *, reasoning_model: bool = False, fingerprint: str = "") -> None:
        self.tokenizer = tokenizer
        self.reasoning_model = reasoning_model
        self.fingerprint = fingerprint

    @property
    @abstractmethod
    def context(self) -> int | None:
        """How many tokens a prompt and its answer may have together; None where there is no limit."""

    @abstractmethod
    def complete(self, prompts: Sequence[Tokens], *, max_new_tokens: int) -> Iterator[dict[int, Written]]:
        """The answers to distinct prompts by greedy decoding, by position, in batches."""

    @abstractmethod
    def _write(
        self, prompts: Sequence[Tokens], *, max_new_tokens: int, samples: int | None, seed: int
    ) -> Iterator[dict[int, list[str]]]:
        """For distinct prompts, by position, in batches: the greedy answer, or `samples` at temperature 1."""

    @abstractmethod
    def _weigh(self, prompts: Sequence[Tokens], tree: Tree) -> Iterator[dict[int, list[float]]]:
        """For distinct prompts, by position, in batches: the log-probability of each of the tree's texts."""

    def render(self, conversation: Conversation) -> str:
        """The text of the chat template, ready for the judge's answer."""
        return str(
            self.tokenizer.apply_chat_template(
                list(conversation),
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self.reasoning_model,
            )
        )

    @cached_property
    def opening(self) -> str:
        """What the chat template has already written of the answer."""
        return opening(self.render([{"role": "user", "content": "?"}]))

    def generate(self, conversations: Sequence[Conversation], *, max_new_tokens: int) -> list[str]:
        """The judge's answers by greedy decoding, in the order of `conversations`, whatever their length.

        Raises:
            jinja2.TemplateError: the chat template refuses one.
        """
        asked: dict[Tokens, list[int]] = {}
        texts = [self.render(conversation) for conversation in conversations]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        for i, prompt in enumerate(ids):
            asked.setdefault(tuple(prompt), []).append(i)
        places = list(asked.values())
        answers = [""] * len(texts)
        for batch in self._write(list(asked), max_new_tokens=max_new_tokens, samples=None, seed=0):
            for number, [text] in batch.items():
                for i in places[number]:
                    answers[i] = self.opening + text
        return answers

    def answer(
        self,
        task: Task[Any],
        conversations: Sequence[Conversation],
        *,
        mode: Mode,
        max_new_tokens: int,
        samples: int = 8,
        seed: int = 0,
        done: Callable[[dict[int, Answer]], None] = lambda _: None,
    ) -> list[Answer]:
        """As `Judge.answer`. Conversations with the same prompt get the same answer, and are asked once.

        A vote's random numbers come from the seed, the prompt and the sample's number, so the answers do not depend
        on the batch, nor on what else is asked (up to rounding, which may tip a draw once in some 100,000 tokens).

        Raises:
            ConfigError: the judge cannot be asked in this mode.
        """
        return self.answer_prompts(
            task,
            self.encode(conversations),
            mode=mode,
            max_new_tokens=max_new_tokens,
            samples=samples,
            seed=seed,
            done=done,
        )

    def answer_prompts(
        self,
        task: Task[Any],
        prompts: Sequence[Tokens | Answer],
        *,
        mode: Mode,
        max_new_tokens: int,
        samples: int = 8,
        seed: int = 0,
        done: Callable[[dict[int, Answer]], None] = lambda _: None,
    ) -> list[Answer]:
        """As `answer`, of what `encode` gave."""
        self._check(task, mode)
        tree = self.verdict_tree(task) if mode == "expected" else Tree()
        room = max(map(len, tree.paths)) if mode == "expected" else self._room(task, max_new_tokens)
        answers: dict[int, Answer] = {}
        asked: dict[Tokens, list[int]] = {}
        for i, prompt in enumerate(prompts):
            if isinstance(prompt, Answer):
                answers[i] = prompt
            elif self.context is not None and len(prompt) + room > self.context:
                answers[i] = overlong(len(prompt), room, self.context)
            else:
                asked.setdefault(prompt, []).append(i)
        if answers:
            done(dict(answers))
        distinct = list(asked)

        def give(batch: dict[int, Answer]) -> None:
            found = {i: answer for number, answer in batch.items() for i in asked[distinct[number]]}
            answers.update(found)
            done(found)

        if mode == "expected":
            for weighed in self._weigh(distinct, tree):
                give({i: weigh(task, log_probs) for i, log_probs in weighed.items()})
        else:
            count = samples if mode == "vote" else None
            for written in self._write(distinct, max_new_tokens=max_new_tokens, samples=count, seed=seed):
                texts = {i: [self.opening + text for text in each] for i, each in written.items()}
                give({i: tally(task, t) if count else read(task, t[0]) for i, t in texts.items()})
        return [answers[i] for i in range(len(prompts))]

    def _room(self, task: Task[Any], max_new_tokens: int) -> int:
        """What an answer needs, in tokens: where the judge does not reason, a verdict."""
        return max_new_tokens if reasons(task, self) else min(max_new_tokens, self.verdict_room(task))

    def verdict_room(self, task: Task[Any]) -> int:
        """How many tokens a verdict and the end of the turn take."""
        some = next(iter(task.verdicts()))  # one's own task may not be able to count them
        return len(self._encode([task.format(some)])[0]) + 1

    def encode(self, conversations: Sequence[Conversation]) -> list[Tokens | Answer]:
        """The tokens of each prompt; an answer with a problem where the chat template refuses the conversation."""
        texts: dict[int, str] = {}
        found: dict[int, Tokens | Answer] = {}
        for i, conversation in enumerate(conversations):
            try:
                texts[i] = self.render(conversation)
            except jinja2.TemplateError as error:
                found[i] = refused(error)
        if texts:
            # the chat template has written the special tokens already
            ids = self.tokenizer(list(texts.values()), add_special_tokens=False)["input_ids"]
            found.update(zip(texts, map(tuple, ids), strict=True))
        return [found[i] for i in range(len(conversations))]

    def verdict_tree(self, task: Task[Any]) -> Tree:
        """The canonical texts of the legal verdicts, each with the end of the turn."""
        return Tree.of(self._encode(self._verdicts(task)))

    def verdicts_behind(self, task: Task[Any], end: str) -> list[list[int]]:
        """As `verdict_tree`, the texts' tokens, behind a reasoning whose text ends with `end`: its closing tag, and what
        its last token has beside that."""
        texts = [reasoned(end, text, own=self.reasons_by_itself) for text in self._verdicts(task)]
        [before] = self._encode([end])
        # in place, for some tokenizers put a space before every text; alone where the tag's end and what follows are one
        placed = self._encode([end + text for text in texts])
        return [
            whole[len(before) :] if whole[: len(before)] == before else text
            for whole, text in zip(placed, self._encode(texts), strict=True)
        ]

    @property
    def reasons_by_itself(self) -> bool:
        """Whether a reasoning is not asked for in the prompt."""
        return self.reasoning_model or bool(self.opening)

    def _verdicts(self, task: Task[Any]) -> list[str]:
        end = self._end_of_turn()
        return [task.format(verdict) + end for verdict in task.verdicts()]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _check(self, task: Task[Any], mode: Mode) -> None:
        if mode not in self.modes:
            raise ConfigError(f"this judge cannot be asked in mode {mode}, only in {' or '.join(self.modes)}")
        if mode == "expected" and reasons(task, self):
            raise ConfigError(
                "this judge reasons before its verdict, and mode expected would give the probability of a verdict "
                "without any reasoning: use vote, or greedy"
            )
        if problem := too_many(task, mode):
            raise ConfigError(problem)

    def _end_of_turn(self) -> str:
        return self.after_answer().rstrip()

    def after_answer(self) -> str:
        """What the chat template writes after an answer: not the end-of-sequence token in every family."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
        rendered = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        after = rendered.rpartition(_PROBE)[2]
        return after if after.strip() else str(self.tokenizer.eos_token)
