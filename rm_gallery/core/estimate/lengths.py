"""`Lengths`: how many rows a configuration trains on, and how many tokens they have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import ConfigError, DataError, MissingDependency
from rm_gallery.core.judge.answer import too_many
from rm_gallery.core.tasks import Task
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.pairs import read_pairs
from rm_gallery.core.train.ratings import read_ratings
from rm_gallery.core.train.rows import build_examples, drawn

SAMPLE = 512
"""Rows whose tokens are counted; the others are taken to be like them."""
CHARACTERS = 4
"""To a token, of running text where no tokenizer is at hand."""
CHARACTERS_OF_TAGS = 3
"""To a token of a verdict."""

SCALAR = ("bradley_terry", "regression")

Conversation = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Lengths:
    """In tokens.

    Attributes:
        rows: training rows (`bradley_terry`: pairs) that are short enough.
        held_out: rows of `data.val`.
        texts: lengths of prompts, for scalar models of whole texts, of rows like those that are trained on.
        answer: of an answer with the end of its turn; 0 of a scalar model.
        tree: tokens that all legal verdicts together put behind a prompt; None where they cannot all be weighed.
        longest: of a text.
        behind: tokens that all legal verdicts together put behind a reasoning, of `exact`.
        notes: sentences on where the lengths are from.
    """

    rows: int
    held_out: int
    texts: tuple[int, ...]
    answer: int
    tree: int | None
    longest: int
    notes: tuple[str, ...] = ()
    behind: int = 0

    @property
    def mean(self) -> float:
        return sum(self.texts) / len(self.texts)


def given_lengths(
    rows: int, prompt: int, answer: int, *, held_out: int = 0, tree: int | None = None
) -> Lengths:
    """Every prompt and every answer of one length."""
    return Lengths(rows, held_out, (prompt,), answer, tree, prompt)


def read_lengths(
    config: TrainConfig, *, rows: int | None = None, prompt: int | None = None, answer: int | None = None
) -> Lengths:
    """Of the rows that `config` trains on. What is given is not measured; with `rows` and `prompt`, no file is read.

    Raises:
        ConfigError, DataError: the files or the settings do not fit.
    """
    scalar = config.method in SCALAR
    whole = rows is not None and prompt is not None
    counter = _Counter(None, ()) if whole and (scalar or answer is not None) else _Counter.of(config)
    task = None if scalar else config.build_task()
    notes = list(counter.notes)
    if rows is not None and prompt is not None:
        notes = [
            note.replace(f"{CHARACTERS} characters", f"{CHARACTERS_OF_TAGS} characters") for note in notes
        ]
        found = Lengths(rows, 0, (prompt,), 0, None, prompt)
        examples: Sequence[Any] = ()
    else:
        count, conversations, examples, notes_of = _scalar_rows(config) if scalar else _rows(config, task)
        lengths = [counter.text(conversation, scalar) for conversation in conversations]
        kept = [length for length in lengths if length <= config.data.max_prompt_length]
        if not kept:
            raise DataError(
                f"all prompts of {config.data.train} are longer than data.max_prompt_length="
                f"{config.data.max_prompt_length} tokens (the shortest has {min(lengths)}): raise it"
            )
        if prompt is not None:
            kept = [prompt]
        elif len(kept) < len(lengths):
            share = 1 - len(kept) / len(lengths)
            notes.append(f"{share:.1%} of the rows are over data.max_prompt_length and left out")
        usable = round(count * len(kept) / len(lengths)) if prompt is None else count
        notes += notes_of
        held_out = _held_out(config) if config.data.val else 0
        found = Lengths(usable if rows is None else rows, held_out, tuple(kept), 0, None, max(kept))
    if task is None:
        return replace(found, notes=tuple(notes))
    tokens, tree, said = _answer(config, task, counter, examples)
    if answer is not None:
        tokens, said = answer, []
    # of `exact`, which refuses verdicts that are many; at use a reasoning is followed by one verdict
    behind = _tree(task, counter) if config.method == "exact" and tree is None else 0
    return replace(found, answer=tokens, tree=tree, behind=behind, notes=(*notes, *said))


@dataclass(frozen=True)
class _Counter:
    """Counts tokens by the model's tokenizer, or guesses them from characters."""

    asker: Any
    notes: tuple[str, ...]

    @classmethod
    def of(cls, config: TrainConfig) -> _Counter:
        try:
            from rm_gallery.core.models.require import require

            require("train", "torch", "transformers")
            from rm_gallery.core.judge import LocalJudge
            from rm_gallery.core.models.weights import load_tokenizer

            tokenizer = load_tokenizer(
                config.model.path,
                trust_remote_code=config.model.trust_remote_code,
                chat=config.method not in SCALAR,
            )
        except (ConfigError, MissingDependency):
            guess = f"tokens are guessed, {CHARACTERS} characters each: the tokenizer of {config.model.path} is not at hand"
            return cls(None, (guess,))
        return cls(LocalJudge(None, tokenizer, reasoning_model=config.model.reasoning_model), ())

    def text(self, conversation: Conversation, scalar: bool) -> int:
        if self.asker is None:
            return math.ceil(sum(len(turn["content"]) for turn in conversation) / CHARACTERS)
        if scalar:
            from rm_gallery.core.judge.scalar import encode

            return len(encode(self.asker.tokenizer, conversation)["input_ids"])
        return self.raw(self.asker.render(conversation))

    def raw(self, text: str) -> int:
        if self.asker is None:
            return math.ceil(len(text) / CHARACTERS_OF_TAGS)
        return len(self.asker.tokenizer(text, add_special_tokens=False)["input_ids"])


def _rows(
    config: TrainConfig, task: Task[Any] | None
) -> tuple[int, list[Conversation], list[Any], list[str]]:
    assert task is not None
    rows = drawn(load_rows(config.data.train), config.data.limit, config.train.seed)
    try:
        examples = build_examples(task, rows, limit=SAMPLE, seed=config.train.seed)
    except DataError as error:
        raise DataError(f"{config.data.train} does not fit the task {task.name}: {error}") from None
    return len(rows), [e.messages for e in examples], examples, _sampled(len(examples), len(rows))


def _scalar_rows(config: TrainConfig) -> tuple[int, list[Conversation], list[Any], list[str]]:
    data, seed = config.data, config.train.seed
    if config.method == "regression":
        rated, notes = read_ratings(
            data.train, list(config.regression.attributes), limit=data.limit, seed=seed
        )
        sample: list[Conversation] = [row.conversation for row in drawn(rated, SAMPLE, seed)]
        whole, used = len(rated), len(sample)
    else:
        pairs, notes = read_pairs(data.train, config.bradley_terry, limit=data.limit, seed=seed)
        chosen = drawn(pairs, SAMPLE, seed)
        sample = [text for pair in chosen for text in pair.conversations]
        whole, used = len(pairs), len(chosen)
    return whole, sample, [], [*notes, *_sampled(used, whole)]


def _held_out(config: TrainConfig) -> int:
    assert config.data.val is not None
    count = len(load_rows(config.data.val))
    return min(count, config.data.limit or count)


def _sampled(used: int, whole: int) -> list[str]:
    return [f"lengths are those of {used:,} of {whole:,} rows, drawn with the seed"] if used < whole else []


def _answer(
    config: TrainConfig, task: Task[Any], counter: _Counter, examples: Sequence[Any]
) -> tuple[int, int | None, list[str]]:
    """(tokens of an answer, of the tree of verdicts, sentences)."""
    few = not too_many(task, "expected")
    reasons = config.prompt.think or config.model.reasoning_model
    if few:
        texts = [task.format(verdict) for verdict in task.verdicts()]
    else:
        texts = [task.format(example.truth) for example in examples[:SAMPLE]]
    if not texts:
        raise ConfigError(
            f"the verdicts of task {task.name} are too many to list: say how long one is, --response N"
        )
    verdict = 1 + round(sum(map(counter.raw, texts)) / len(texts))  # and the end of the turn
    if not reasons:
        return verdict, _tree(task, counter) if few else None, []
    limit = config.rollout.max_response_length
    if config.method == "sft" and (found := _reasonings(config, counter.raw, examples)):
        return verdict + round(sum(found) / len(found)), None, []
    said = f"answers are taken to be {limit:,} tokens, rollout.max_response_length: the most; --response N says how long"
    return limit, None, [said]


def _tree(task: Task[Any], counter: _Counter) -> int:
    """Tokens of all legal verdicts together."""
    if counter.asker is None:
        return sum(counter.raw(task.format(verdict)) for verdict in task.verdicts())
    return len(counter.asker.verdict_tree(task).tokens)


def _reasonings(config: TrainConfig, count: Callable[[str], int], examples: Sequence[Any]) -> list[int]:
    name, found = config.sft.reasoning, []
    for example in examples:
        for place in (example.row, example.row.get("metadata") or {}):
            if isinstance(place.get(name), str):
                found.append(count(place[name]))
                break
    return found
