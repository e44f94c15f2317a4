"""Method `sft`: the tokens that each row's answer is made of, exactly as the judge is asked and read at use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rm_gallery.core.data.samples import metadata_of
from rm_gallery.core.errors import ConfigError, DataError, InvalidVerdict, nearest
from rm_gallery.core.judge.base import ModelJudge
from rm_gallery.core.tasks import Task
from rm_gallery.core.templates.base import reasoned
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.rows import Example


@dataclass(frozen=True, slots=True)
class Written:
    """A row's prompt and its answer with the end of the turn, in tokens."""

    prompt: list[int]
    answer: list[int]


def reasons(config: TrainConfig) -> bool:
    """Whether the judge is to write its reasoning before the verdict."""
    return config.prompt.think or config.model.reasoning_model


def with_reasoning(config: TrainConfig, examples: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """(the rows that can be trained on, a sentence on the rest): of a judge that reasons, those with a reasoning.

    Raises:
        DataError: no row has the column; names the nearest.
    """
    if config.method != "sft" or not reasons(config):
        return list(examples), []
    name = config.sft.reasoning
    kept = [example for example in examples if reasoning_of(example.row, name)]
    if not kept:
        known = list({**metadata_of(examples[0].row), **examples[0].row})
        raise DataError(
            f"no row of {config.data.train} has a text in the column {name!r}, and sft of a judge that reasons learns "
            f"it: name the column in sft.reasoning, or set prompt.think and model.reasoning_model to false."
            f"{nearest(name, known)}"
        )
    out = len(examples) - len(kept)
    return kept, [f"{out} training rows have no reasoning and are left out"] if out else []


def reasoning_of(row: Mapping[str, Any], name: str) -> str:
    """The row's text in that column, or in that field of `metadata`; "" where there is none."""
    for place in (row, metadata_of(row)):
        if isinstance(place.get(name), str) and place[name].strip():
            return str(place[name]).strip()
    return ""


def written(
    config: TrainConfig, task: Task[Any], asker: ModelJudge, examples: Sequence[Example]
) -> tuple[list[Example], list[Written], list[str]]:
    """(the rows whose answer is short enough, their tokens, a sentence on the rest).

    Raises:
        ConfigError: the chat template begins a reasoning, and the judge is to have none.
        DataError: a reasoning cannot stand before a verdict (names the row), or no answer is short enough.
    """
    if asker.opening and not reasons(config):
        raise ConfigError(
            f"the chat template of {config.model.path} begins every answer with <think>, so sft needs a reasoning to "
            "train: set model.reasoning_model to true"
        )
    tail, limit = asker.after_answer(), config.rollout.max_response_length
    texts = [_answer(config, task, asker.opening, example) for example in examples]
    tokenizer = asker.tokenizer
    # a prompt and its answer by themselves, as they are at use
    prompts = tokenizer([asker.render(e.messages) for e in examples], add_special_tokens=False)["input_ids"]
    answers = tokenizer([text + tail for text in texts], add_special_tokens=False)["input_ids"]
    lengths = [
        len(ids)
        for ids in tokenizer([t + tail.rstrip() for t in texts], add_special_tokens=False)["input_ids"]
    ]
    fitting = [i for i, length in enumerate(lengths) if length <= limit]
    if not fitting:
        raise DataError(
            f"all {len(lengths)} answers are longer than rollout.max_response_length={limit} tokens (the shortest has "
            f"{min(lengths)}): raise it"
        )
    out = len(lengths) - len(fitting)
    note = f"{out} training answers are over rollout.max_response_length and left out"
    return (
        [examples[i] for i in fitting],
        [Written(list(prompts[i]), list(answers[i])) for i in fitting],
        [note] if out else [],
    )


def _answer(config: TrainConfig, task: Task[Any], opening: str, example: Example) -> str:
    verdict = task.format(example.truth)
    if not reasons(config):
        return verdict
    reasoning = reasoning_of(example.row, config.sft.reasoning)
    own = bool(opening) or config.model.reasoning_model
    # as such models write it; else as the prompt asks for it
    thought = f"<think>\n{reasoning}\n</think>" if own else f"<think>{reasoning}</think>"
    whole = thought + reasoned("</think>", verdict, own=own)
    try:
        found = task.parse(whole)
    except InvalidVerdict as error:
        raise DataError(f"{_name(example)}: its reasoning cannot stand before a verdict: {error}") from None
    if found != example.truth:
        raise DataError(f"{_name(example)}: with its reasoning the answer reads as {found!r}")
    return whole.removeprefix(opening)


def _name(example: Example) -> str:
    return str(example.row.get("unique_id") or "a row without unique_id")
