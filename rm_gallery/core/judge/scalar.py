"""`ScalarJudge`: a sequence classifier whose numbers score a response, as a Bradley-Terry head is."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from rm_gallery.core.data.samples import Message, conversation_text
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import FAILED, Answer, Conversation
from rm_gallery.core.judge.read import NOT_FINITE, overlong, refused
from rm_gallery.core.judge.scalar_card import attributes_of
from rm_gallery.core.models.fingerprint import model_fingerprint

if TYPE_CHECKING:
    import torch

Encoded = dict[str, list[int]]
_ARCHITECTURE = "ForSequenceClassification"
_UNLIMITED = 10**9
"""A tokenizer without a limit gives one beyond this."""


def is_scalar_model(path: str | Path) -> bool:
    """Whether the folder or hub id holds a sequence classifier, whole or as adapters, by its configuration alone."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return _on_hub(str(path))
    for name in ("config.json", "adapter_config.json"):
        try:
            config = json.loads((folder / name).read_bytes())
        except (OSError, ValueError):
            continue
        architectures = config.get("architectures") or []
        return config.get("task_type") == "SEQ_CLS" or any(a.endswith(_ARCHITECTURE) for a in architectures)
    return False


def encode(tokenizer: Any, conversation: Conversation) -> Encoded:
    """The inputs of a scalar model for a conversation that ends with the response, in training and in use.

    A decoder is given the conversation by its chat template; an encoder, whose tokenizer has none, the pair of what
    comes before the response, as plain text, and the response.
    """
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(list(conversation), tokenize=False)
        return dict(tokenizer(text, add_special_tokens=False))  # the template has written them
    turns = [Message(turn["role"], turn["content"]) for turn in conversation[:-1]]
    return dict(tokenizer(conversation_text(turns), conversation[-1]["content"]))


def context_length(config: Any, tokenizer: Any) -> int | None:
    """How many tokens a text may have for a model of this configuration; None where there is no limit."""
    model = getattr(config.get_text_config(), "max_position_embeddings", None)
    # an encoder may keep some of its positions to itself: there the tokenizer knows
    limits = [n for n in (model, tokenizer.model_max_length) if n and n < _UNLIMITED]
    return min(limits, default=None)


class ScalarJudge:
    """A sequence classifier and its tokenizer; `encode` says what it is given.

    A head of several labels gives one number, their weighted sum, and `Answer.text` holds each of them as JSON.

    Args:
        model: in evaluation mode, on its device.
        batch_tokens: tokens encoded at once, padding included.
        autocast: compute in this dtype over the model's own weights.
        fingerprint: tells the judge from another.
        attributes: the head's labels, in their order, with their weights; {} for a head with one number.
        shared: let a decoder that can read once what texts begin with alike, without padding.

    Raises:
        ConfigError: the head has not as many labels as `attributes`, or several and no weights.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_tokens: int = 8192,
        autocast: torch.dtype | None = None,
        fingerprint: str = "",
        attributes: Mapping[str, float] | None = None,
        shared: bool = True,
    ) -> None:
        labels, self.attributes = model.config.num_labels, dict(attributes or {})
        if labels != (len(self.attributes) or 1):
            raise ConfigError(
                f"this sequence classifier has {labels} labels and its card {len(self.attributes)} weights; one that "
                "scores responses has one label, or a card rm_gallery.json with a weight for each"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.autocast = autocast
        self.fingerprint = fingerprint
        from rm_gallery.core.models.last_token import shares_beginnings

        self._shares = shared and shares_beginnings(model)
        cached = "use_cache" in inspect.signature(model.forward).parameters
        self._options = {"use_cache": False} if cached else {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        batch_tokens: int = 8192,
        dtype: str = "float32",
        trust_remote_code: bool = False,
    ) -> ScalarJudge:
        """Load a folder or hub id; `dtype` as for `LocalJudge`.

        Raises:
            ConfigError: there is no model at `path`, or it has several labels.
            MissingDependency: the `train` extra is not installed.
        """
        from rm_gallery.core.models.require import require

        require("train", "torch", "transformers")
        import torch

        from rm_gallery.core.models.weights import default_device, load_model, load_tokenizer, resolve_dtype

        device, compute = default_device(), resolve_dtype(dtype)
        weights = torch.float32 if device.type == "cpu" else compute
        attributes = attributes_of(path)
        model = load_model(
            path,
            dtype=weights,
            trust_remote_code=trust_remote_code,
            classifier=True,
            labels=len(attributes) or 1,
        )
        return cls(
            model.to(device).eval(),
            load_tokenizer(path, trust_remote_code=trust_remote_code, chat=False),
            batch_tokens=batch_tokens,
            autocast=None if compute == weights else compute,
            fingerprint=" ".join(
                [model_fingerprint(path), str(compute), *([str(attributes)] * bool(attributes))]
            ),
            attributes=attributes,
        )

    @property
    def context(self) -> int | None:
        """How many tokens a text may have; None where there is no limit."""
        return context_length(self.model.config, self.tokenizer)

    def score(
        self,
        conversations: Sequence[Conversation],
        *,
        done: Callable[[dict[int, Answer]], None] = lambda _: None,
    ) -> list[Answer]:
        """As `Scorer.score`: the model's own number for the last turn of each conversation."""
        answers: dict[int, Answer] = {}
        encoded: dict[int, Encoded] = {}
        for i, conversation in enumerate(conversations):
            if not conversation or conversation[-1]["role"] != "assistant":
                answers[i] = Answer(
                    problem=f"{FAILED}: the conversation does not end with an assistant's response"
                )
                continue
            try:
                encoded[i] = self.encode(conversation)
            except jinja2.TemplateError as error:
                answers[i] = refused(error)
                continue
            length = len(encoded[i]["input_ids"])
            if self.context is not None and length > self.context:
                answers[i] = overlong(length, 0, self.context)
                del encoded[i]
        if answers:
            done(dict(answers))
        for batch, values in self._forest(encoded) if self._shares else self._padded(encoded):
            found = dict(zip(batch, values, strict=True))
            scored = {i: self._answer(each) for i, each in found.items()}
            answers.update(scored)
            done(scored)
        return [answers[i] for i in range(len(conversations))]

    def encode(self, conversation: Conversation) -> Encoded:
        """The model's inputs for a conversation that ends with the response."""
        return encode(self.tokenizer, conversation)

    def _answer(self, values: Sequence[float]) -> Answer:
        if not all(map(math.isfinite, values)):
            return Answer(problem=NOT_FINITE)
        if not self.attributes:
            return Answer(score=values[0])
        named = {name: round(value, 6) for name, value in zip(self.attributes, values, strict=True)}
        weights = self.attributes.values()
        return Answer(text=json.dumps(named), score=sum(w * v for w, v in zip(weights, values, strict=True)))

    def _forest(self, encoded: Mapping[int, Encoded]) -> Iterator[tuple[list[int], list[list[float]]]]:
        """(positions, numbers of each) in batches of texts that begin alike, which is encoded once."""
        import torch

        from rm_gallery.core.models.forest import batches
        from rm_gallery.core.models.last_token import read_at, score_texts
        from rm_gallery.core.models.tree import Tree

        pad = self.model.config.get_text_config().pad_token_id
        texts = {i: read_at(inputs["input_ids"], pad) for i, inputs in encoded.items()}
        order = sorted(texts, key=lambda i: texts[i])
        for part in batches([texts[i] for i in order], Tree(), self.batch_tokens):
            batch = [order[place] for place in part]
            with torch.no_grad(), self._precision():
                scores = score_texts(self.model, [texts[i] for i in batch])
            yield batch, scores.float().tolist()

    def _padded(self, encoded: Mapping[int, Encoded]) -> Iterator[tuple[list[int], list[list[float]]]]:
        """(positions, numbers of each) in padded batches: for an encoder, or a decoder whose attention is not the plain one."""
        for batch in self._batches({i: len(inputs["input_ids"]) for i, inputs in encoded.items()}):
            yield batch, self._forward([encoded[i] for i in batch])

    def _batches(self, lengths: dict[int, int]) -> Iterator[list[int]]:
        """Longest first, like lengths together: padding costs as much as tokens."""
        batch: list[int] = []
        for i in sorted(lengths, key=lambda i: -lengths[i]):
            if batch and lengths[batch[0]] * (len(batch) + 1) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _forward(self, texts: Sequence[Encoded]) -> list[list[float]]:
        import torch

        width = max(len(text["input_ids"]) for text in texts)
        config = self.model.config.get_text_config()
        own = config.pad_token_id
        # A decoder scores at the last token that is not this one. Without one, at the last: any token will do that
        # is in none of the texts.
        present = {token for text in texts for token in text["input_ids"]}
        pad = own if own is not None else next(i for i in range(config.vocab_size) if i not in present)
        fill = {"input_ids": pad, "token_type_ids": self.tokenizer.pad_token_type_id}
        inputs = {
            name: torch.tensor(
                [text[name] + [fill.get(name, 0)] * (width - len(text[name])) for text in texts],
                device=self.model.device,
            )
            for name in texts[0]
        }
        config.pad_token_id = pad
        try:
            with torch.no_grad(), self._precision():
                logits = self.model(**inputs, **self._options).logits
        finally:
            config.pad_token_id = own
        return [[float(value) for value in values] for values in logits.float().tolist()]

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.model.device.type, self.autocast) if self.autocast else nullcontext()


def _on_hub(name: str) -> bool:
    if name.count("/") > 1 or name[:1] in (".", "~", "/"):
        return False  # a folder that is not there
    try:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(name)
    except (ImportError, OSError, ValueError):
        return False  # whoever loads it says what is missing
    return any(a.endswith(_ARCHITECTURE) for a in config.architectures or [])
