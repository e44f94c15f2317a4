"""`BaseTrainDataset`: exported rows as the dataset that verl trains on, built and checked by a task.

class PointwiseTrainDataset(BaseTrainDataset):
    task = "pointwise"

Every step is a hook that a subclass may replace. Without a task, a row of two responses is asked as `pairwise`
and any other as `pointwise`, where a default hook still needs one.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import decoded, response_count, row_name
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.models.require import require
from rm_gallery.core.tasks import Task, get_task
from rm_gallery.core.tasks.saved import SavedTask, load_saved_task
from rm_gallery.core.templates.base import THINK, opening
from rm_gallery.core.train.rows import Example, drop_overlong, row_labels, unwrapped_answer
from rm_gallery.core.train.sampling import prompt_order

require("train", "torch")
from torch.utils.data import Dataset  # noqa: E402 - first the sentence that says what to install

logger = logging.getLogger(__name__)
Messages = list[dict[str, str]]


class BaseTrainDataset(Dataset):  # type: ignore[misc]  # torch is Any to the checker
    """Prompts with their ground truth, in the form that verl reads.

    All rows are read, asked and checked when the dataset is built, so that a bad one is known before a model is
    loaded. Prompts of more than `config.max_prompt_length` tokens are left out and counted in `overlong`,
    whatever `config.filter_overlong_prompts` says: verl does not truncate them and fails on them.

    Args:
        data_files: a Parquet or JSON Lines file of exported rows, or several.
        tokenizer: of the model to train; its chat template gives the prompts' lengths.
        processor: not used; verl passes it.
        config: verl's `data` section, or a dict. Read are `train_files`, `max_prompt_length`,
            `apply_chat_template_kwargs`, `seed`, and ours: `card` (a folder whose `rm_gallery.json` says the task
            with its settings), or `task`, `reasoning_model`, `think`, `instruction`; and `order` (the arguments of
            `prompt_order` and `shuffle`), in which the training rows are then laid out for the whole run.
        max_samples: use at most so many rows, drawn with the seed. None or less than 1: all.

    Raises:
        DataError: no rows, a missing or bad label (names the row), or no prompt that is short enough.
        ConfigError: there is no such task, two settings contradict each other, or `_apply_chat_template` renders
            another prompt than the engine will.
    """

    task: ClassVar[str | None] = None
    """The task behind the default hooks; `config.task` goes before it."""

    def __init__(
        self,
        data_files: str | Path | Iterable[str | Path],
        tokenizer: Any,
        processor: Any = None,
        config: Mapping[str, Any] | None = None,
        max_samples: int | None = None,
        **_: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.config: Mapping[str, Any] = {} if config is None else config
        self.template_kwargs = dict(self.config.get("apply_chat_template_kwargs") or {})
        saved = self._saved()
        self.reasoning_model = self._reasoning(saved)
        self.template_kwargs["enable_thinking"] = self.reasoning_model
        name = self.config.get("task") or self.task
        if saved is not None:
            self.judging: Task[Any] | None = saved.task
        else:
            self.judging = None if name is None else self._build_task(str(name))
        self.inferred: dict[str, Task[Any]] = {}
        self.files = _paths(data_files)
        examples = self._examples(self._rows(max_samples))
        longest = self.config.get("max_prompt_length")
        self.overlong = 0
        if longest is not None:
            total = len(examples)
            examples, self.overlong = drop_overlong(examples, self._count_tokens, int(longest))
            if self.overlong:
                logger.warning(
                    "%d of %d prompts are over data.max_prompt_length=%s", self.overlong, total, longest
                )
        self.examples = examples
        self.order = self._order()
        rendered = hasattr(self.tokenizer, "apply_chat_template")
        self.opening = opening(self._apply_chat_template(examples[0].messages)) if rendered else ""
        self._check_engine_template()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`raw_prompt` (chat messages), `index`, `data_source`, `reward_model.ground_truth`, `extra_info`."""
        example = self.examples[self.order[index]]
        row = example.row
        labels = row_labels(row)
        # Parquet gives every row every key
        metadata = {key: value for key, value in (row.get("metadata") or {}).items() if value is not None}
        if "preferred" in labels:  # where the pairwise reward looks when it is handed no truth
            metadata = {**metadata, **labels}
        return {
            "raw_prompt": [dict(message) for message in example.messages],
            "index": index,
            "data_source": self._get_data_source(row),
            "reward_model": {"ground_truth": example.truth},
            "extra_info": {
                "index": index,
                "unique_id": str(row.get("unique_id") or ""),
                "metadata": metadata,
                "opening": self.opening,
                "labels": labels,
            },
        }

    def __getstate__(self) -> dict[str, Any]:
        # a loader's workers only read items; a task holds functions that may not be picklable
        return {**self.__dict__, "judging": None, "inferred": {}}

    # -- hooks

    def _normalize_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row in the newer shape: JSON strings decoded, `output[…].answer` unwrapped."""
        row = {**row, **{key: decoded(row[key]) for key in ("input", "output", "metadata") if key in row}}
        output = row.get("output")
        if isinstance(output, list):
            row["output"] = [unwrapped_answer(item) for item in output]
        elif output is not None:
            row["output"] = unwrapped_answer(output)
        return row

    def _build_messages(self, example: dict[str, Any]) -> Messages:
        """The chat messages that ask for the verdict on this row."""
        return self._task_of(example).messages(example)

    def _apply_chat_template(self, messages: Messages) -> str:
        """The text of the prompt, by whose tokens its length counts. The engine renders its own."""
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **self.template_kwargs
        )
        return str(text)

    def _extract_ground_truth(self, row: dict[str, Any]) -> Any:
        """What `compute_score` gets as `ground_truth`; raises `DataError` where it is missing or bad."""
        task = self._task_of(row)
        truth = task.truth(row)
        label = getattr(task, "label", None)
        return {label: truth} if label else truth

    def _get_data_source(self, row: dict[str, Any]) -> str:
        return str(row.get("data_source") or "unknown")

    def _get_examples(self) -> list[Any]:
        """In-context examples for a reward module. May be called before `super().__init__`."""
        return []

    # -- building

    def _saved(self) -> SavedTask | None:
        folder = self.config.get("card")
        saved = load_saved_task(folder, trust_remote_code=True) if folder else None
        if folder and saved is None:
            raise ConfigError(
                f"data.card: {folder} holds no rm_gallery.json; every node must see that folder"
            )
        return saved

    def _order(self) -> Sequence[int]:
        """Indices of examples, for each item. verl has no sampler of one's own, so the rows lie as they come."""
        order = self.config.get("order")
        if order is None or self.files != _paths(self.config.get("train_files") or ()):
            return range(len(self.examples))
        return prompt_order(
            [self._task_of(example.row).cluster(example.row) for example in self.examples]
            if order.get("shuffle") == "prompts"
            else range(len(self.examples)),
            int(order["batch_size"]),
            epochs=float(order.get("epochs") or 1),
            max_steps=order.get("max_steps"),
            seed=int(order.get("seed") or 0),
        )

    def _reasoning(self, saved: SavedTask | None) -> bool:
        """One setting decides both: the chat template's thinking, and that the prompt does not ask for it."""
        said = self.template_kwargs.get("enable_thinking")
        setting = self.config.get("reasoning_model") if saved is None else saved.reasoning_model
        if setting is None:
            return bool(said)
        if said is not None and bool(said) != bool(setting):
            raise ConfigError(
                f"data.reasoning_model is {bool(setting)} but data.apply_chat_template_kwargs.enable_thinking "
                f"is {bool(said)}: set them alike"
            )
        return bool(setting)

    def _build_task(self, name: str) -> Task[Any]:
        dimensions = self.config.get("dimensions")
        options = {} if dimensions is None else {"dimensions": dimensions}
        task = get_task(name, instruction=self.config.get("instruction"), **options)
        asks = self.config.get("think")
        if asks is None:
            asks = THINK in task.template.model_fields
        task.think = bool(asks) and not self.reasoning_model
        return task

    def _task_of(self, row: dict[str, Any]) -> Task[Any]:
        if self.judging is not None:
            return self.judging
        name = "pairwise" if response_count(row) == 2 else "pointwise"
        if name not in self.inferred:
            self.inferred[name] = self._build_task(name)
        return self.inferred[name]

    def _rows(self, max_samples: int | None) -> list[tuple[str, dict[str, Any]]]:
        """(where it stands, row) for each row to use, in the files' order."""
        rows = [
            (f"{file}, row {number}", row)
            for file in self.files
            for number, row in enumerate(load_rows(file), start=1)
        ]
        if not rows:
            raise DataError("data_files names no file: there is nothing to train on")
        if max_samples is not None and 0 < max_samples < len(rows):
            seed = self.config.get("seed") or 0
            rows = [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), max_samples))]
        return rows

    def _examples(self, rows: list[tuple[str, dict[str, Any]]]) -> list[Example]:
        examples, bad = [], []
        for place, raw in rows:
            try:
                row = self._normalize_row(raw)
                truth = self._extract_ground_truth(row)
                self._check_truth(row, truth)
                examples.append(Example(row, self._build_messages(row), truth))
            except DataError as error:
                bad.append(f"{place}: {error}")
        if bad:
            raise DataError(
                f"{len(bad)} of {len(rows)} rows cannot be trained on, the first is {bad[0]}; "
                "convert the data again with rmg data convert, or leave these rows out"
            )
        return examples

    def _check_truth(self, row: dict[str, Any], truth: Any) -> None:
        """The truth of a hook of one's own may be of any kind, but not missing."""
        if self.judging is not None:
            self.judging.check_truth(truth)
            return
        parts = list(truth.values()) if isinstance(truth, Mapping) else [truth]
        # a NaN is what pandas makes of a missing label; it does not equal itself
        if not parts or any(part is None or part == "" or part != part for part in parts):
            raise DataError(f"{row_name(row)}: the ground truth is missing, found {truth!r}")

    def _count_tokens(self, messages: Messages) -> int:
        # the chat template has written the special tokens already
        text = self._apply_chat_template(messages)
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _check_engine_template(self) -> None:
        """verl renders the messages itself, with `apply_chat_template_kwargs`: refuse to count and filter others."""
        if not hasattr(self.tokenizer, "apply_chat_template"):
            return
        given = dict(self.config.get("apply_chat_template_kwargs") or {})
        messages = self.examples[0].messages
        ours, templates, engines = (
            self._apply_chat_template(messages),
            *(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, **kwargs
                )
                for kwargs in (self.template_kwargs, given)
            ),
        )
        if ours == engines:
            return
        if ours == templates:  # then it is the one setting that `given` lacks
            raise ConfigError(
                "the model's chat template depends on enable_thinking, which verl is not told: add "
                f"+data.apply_chat_template_kwargs.enable_thinking={str(self.reasoning_model).lower()}"
            )
        raise ConfigError(
            f"{type(self).__name__}._apply_chat_template renders another prompt than verl, which applies the model's "
            "chat template to raw_prompt with data.apply_chat_template_kwargs: put what it adds into _build_messages"
        )


def _paths(files: str | Path | Iterable[str | Path]) -> list[str]:
    return [str(files)] if isinstance(files, str | Path) else [str(file) for file in files]
