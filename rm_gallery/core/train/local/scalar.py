"""What the trainers of scalar models share: texts, lengths, the head, adapters, arguments, held-out scores."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import jinja2
import torch
from accelerate.utils import gather_object
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification, set_seed
from trl import RewardConfig

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.judge.answer import Answer, Conversation
from rm_gallery.core.judge.scalar import Encoded, ScalarJudge, context_length, encode
from rm_gallery.core.judge.scalar_card import name_labels
from rm_gallery.core.models.last_token import share_beginnings, shares_beginnings, will_share
from rm_gallery.core.models.memory import keep_freed_memory
from rm_gallery.core.models.weights import inner_model, load_configuration, load_tokenizer, quiet_transformers
from rm_gallery.core.train.config import TrainConfig
from rm_gallery.core.train.local.job import Job, training_order
from rm_gallery.core.train.local.sharing import backward_in_forests
from rm_gallery.core.train.local.trainers import (
    common_arguments,
    in_bfloat16,
    lora_config,
    micro_batch,
    within_budget,
    world_size,
)
from rm_gallery.core.train.run_folder import RunFolder

logger = logging.getLogger("rm_gallery.train")


class Row(Protocol):
    """What a scalar model learns from: responses to one prompt, and what is known of them."""

    @property
    def input(self) -> Hashable: ...


R = TypeVar("R", bound=Row)
J = TypeVar("J", bound="ScalarJob[Any]")
Rows = tuple[list[R], list[R], list[str]]
"""The rows of `data.train` and of `data.val`, and what was left out of them."""


@dataclass(frozen=True, kw_only=True)
class ScalarJob(Job, Generic[R]):
    """Trains a sequence classifier on texts that are encoded as `ScalarJudge` will encode them.

    Attributes:
        texts: of each training row, one for each conversation.
    """

    best: ClassVar[tuple[str, bool]]
    """The held-out figure that decides which checkpoint is the best, and whether more of it is better."""

    train: list[R]
    val: list[R]
    texts: Sequence[tuple[Encoded, ...]]

    @classmethod
    def read(cls, config: TrainConfig) -> Rows[R]:
        """Read and check both files. Raises `DataError`."""
        train, notes = cls._read(config.data.train, config)
        val, more = ([], []) if config.data.val is None else cls._read(config.data.val, config)
        return train, val, [*notes, *more]

    @classmethod
    def prepare(cls: type[J], config: TrainConfig) -> J:
        """Read, check and encode the rows.

        Raises:
            ConfigError, DataError: they cannot be trained on; says which and why.
        """
        rows, rows_val, notes = cls.read(config)
        encoder = Encoder(config)
        train, texts, said = encoder.fit(rows, cls._conversations, f"training {cls.unit}")
        cls._check(config, train)
        val, _, said_val = encoder.fit(rows_val, cls._conversations, f"held-out {cls.unit}")
        order = training_order(config, [row.input for row in train])
        lengths = [[len(text["input_ids"]) for text in each] for each in texts]
        # where texts are padded, the two of a pair are to the longer one's length
        loads = [sum(each) if encoder.shares else len(each) * max(each) for each in lengths]
        config, passes = within_budget(config, order, loads, padded=not encoder.shares)
        return cls(
            config=config,
            tokenizer=encoder.tokenizer,
            order=order,
            rows=len(train),
            overlong=len(rows) - len(train),
            overlong_val=len(rows_val) - len(val),
            notes=[*notes, *said, *said_val, *passes],
            train=train,
            val=val,
            texts=texts,
        )

    @staticmethod
    @abstractmethod
    def _read(path: Path, config: TrainConfig) -> tuple[list[R], list[str]]:
        """(the rows of a file, sentences on what was left out of them). Raises `DataError`."""

    @staticmethod
    @abstractmethod
    def _conversations(row: R) -> Sequence[Conversation]:
        """What is scored of a row."""

    @staticmethod
    def _check(config: TrainConfig, train: Sequence[R]) -> None:
        """Raise `DataError` where the training rows that fit cannot be learned from."""

    def arguments(self, run: RunFolder, evaluates: bool) -> RewardConfig:
        micro = micro_batch(self.config)
        return RewardConfig(
            **common_arguments(self.config, run, evaluates, best=self.best),
            per_device_train_batch_size=micro,
            per_device_eval_batch_size=1,
            gradient_accumulation_steps=self.config.mini_batch_size // (micro * world_size()),
            max_length=None,  # what is too long was left out and counted
            train_sampling_strategy="sequential",  # the order is ours
            include_num_input_tokens_seen="non_padding",
        )

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if in_bfloat16(self.config) else None


class Encoder:
    """A tokenizer that pads on the right, and how long a text may be.

    Raises:
        ConfigError: there is no model at `model.path`.
    """

    def __init__(self, config: TrainConfig) -> None:
        path, trust = config.model.path, config.model.trust_remote_code
        self.tokenizer = load_tokenizer(path, trust_remote_code=trust, chat=False)
        # an encoder counts its positions from the left; a decoder's score is read at its last token wherever it is
        self.tokenizer.padding_side = "right"
        configuration = load_configuration(path, trust_remote_code=trust)
        context = context_length(configuration, self.tokenizer)
        self.shares = config.model.shared_prefix and will_share(configuration)
        """Whether texts are encoded once where they begin alike, and not padded."""
        wanted = config.data.max_prompt_length
        self.limit = wanted if context is None else min(wanted, context)
        self.why = (
            f"data.max_prompt_length={wanted}"
            if self.limit == wanted
            else f"the model's context of {context}"
        )

    def __call__(self, conversation: Conversation) -> Encoded:
        return encode(self.tokenizer, conversation)

    def fit(
        self, rows: Sequence[R], conversations: Callable[[R], Sequence[Conversation]], what: str
    ) -> tuple[list[R], list[tuple[Encoded, ...]], list[str]]:
        """(the rows of whose texts none is too long, these texts, a sentence on the others, where there are any).

        Raises:
            DataError: there are rows, and none of them fits.
        """
        texts = []
        for number, row in enumerate(rows, start=1):
            try:
                texts.append(tuple(map(self, conversations(row))))
            except jinja2.TemplateError as error:
                raise DataError(
                    f"the chat template refuses the conversation of number {number} of the {what}: {error}"
                ) from None
        lengths = [max(len(text["input_ids"]) for text in each) for each in texts]
        kept = [i for i, length in enumerate(lengths) if length <= self.limit]
        if rows and not kept:
            raise DataError(
                f"all {len(rows)} {what} are longer than {self.why} tokens (the shortest has {min(lengths)})"
            )
        out = len(rows) - len(kept)
        notes = [f"{out} of {len(rows)} {what} are longer than {self.why} tokens and left out"] if out else []
        return [rows[i] for i in kept], [texts[i] for i in kept], notes


def load_head(config: TrainConfig, start: str, tokenizer: Any, attributes: Mapping[str, float]) -> Any:
    """A sequence classifier with one label for each attribute, or one; its adapters on it where the YAML asks for them.

    What the folder at `start` does not have, the head first of all, is drawn with `train.seed`, and trained whole also
    beside adapters.

    Raises:
        ConfigError: there is no model at `start`, or its head is of another size.
    """
    labels = len(attributes) or 1
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": config.model.trust_remote_code}
    if config.model.attention is not None:
        options["attn_implementation"] = config.model.attention
    keep_freed_memory()
    set_seed(config.train.seed)
    try:
        with quiet_transformers():
            model, found = AutoModelForSequenceClassification.from_pretrained(
                start, num_labels=labels, output_loading_info=True, **options
            )
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise ConfigError(f"{start} has a head of another size than the {labels} labels asked for") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"no model could be loaded from {start}: {str(error).strip()}") from None
    new = sorted(found["missing_keys"])
    if new:
        logger.info("new weights, drawn with train.seed: %s", ", ".join(new))
    name_labels(model.config, attributes)
    # a decoder's score is read before this token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    modules = sorted({key.rpartition(".")[0] for key in new})
    lora = lora_config(config, task_type="SEQ_CLS", modules_to_save=modules, exclude_modules=modules)
    if lora is None:
        return model
    adapted = get_peft_model(model, lora)
    if config.model.gradient_checkpointing:
        adapted.enable_input_require_grads()
    return adapted


def prepare_forward(trainer: Any, shared: bool) -> dict[str, Any]:
    """Where that is `shared` (`model.shared_prefix`) and the model can, let it read what texts begin with alike once.

    Returns:
        What it is to be told beside its inputs: a decoder that reads each text by itself, to keep no keys and values.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if shared and shares_beginnings(model, training=True):
        share_beginnings(model)
        backward_in_forests(trainer)
        return {}
    cached = "use_cache" in inspect.signature(inner_model(model).forward).parameters
    return {"use_cache": False} if cached else {}


def padded(tokenizer: Any, texts: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """The texts as one batch, padded on the right."""
    return dict(tokenizer.pad([dict(text) for text in texts], padding=True, return_tensors="pt"))


_COLUMNS = {"input_ids": "ids", "token_type_ids": "types"}


def columns(texts: Sequence[Encoded], prefix: str = "") -> dict[str, list[list[int]]]:
    """The texts as columns of a dataset, without the attention mask, which padding makes."""
    return {
        prefix + ours: [text[theirs] for text in texts]
        for theirs, ours in _COLUMNS.items()
        if theirs in texts[0]
    }


def text_of(row: Mapping[str, Any], prefix: str = "") -> Encoded:
    """The text of one row of `columns`."""
    return {theirs: row[prefix + ours] for theirs, ours in _COLUMNS.items() if prefix + ours in row}


def held_out_scores(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    attributes: Mapping[str, float],
    autocast: torch.dtype | None,
    shared: bool,
    process: int,
    processes: int,
) -> list[Answer]:
    """`ScalarJudge`'s answers, each process scoring its share and all of them seeing every answer."""
    was_training = model.training
    model.eval()
    try:
        judge = ScalarJudge(
            inner_model(model), tokenizer, autocast=autocast, attributes=attributes, shared=shared
        )
        share = range(process, len(conversations), processes)
        answers = judge.score([conversations[i] for i in share])
        found = dict(gather_object(list(zip(share, answers, strict=True))))
    finally:
        model.train(was_training)
    return [found[i] for i in range(len(conversations))]
