"""Scores read at the last token of texts: what the texts begin with alike is encoded once, and nothing is padded.

The responses of a pair share their question, and so do the rated responses to one. A decoder with a head does not see what
follows a token, so the texts lie as a forest (`forest.py`) whatever their lengths, and the head is asked where each ends.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rm_gallery.core.models.forest import encode_forest, fits_forest, plain_attention, plant
from rm_gallery.core.models.prompts import sorted_once, token_lists
from rm_gallery.core.models.tree import Tree
from rm_gallery.core.models.weights import inner_model

Tokens = tuple[int, ...]
_CLOSE = 5e-2
"""How far the two ways may be apart in two short texts, in shares of the larger score: more than rounding to bfloat16."""


def will_share(config: Any) -> bool:
    """Whether a classifier of this configuration, in training, can be read so, as far as that tells."""
    kind = _decoder(config)
    return kind is not None and plain_attention(kind, config, training=True)


def shares_beginnings(model: Any, training: bool | None = None) -> bool:
    """Whether it is a decoder whose head is asked at one token, with attention as a forest needs it: so it says, and so it
    scores two short texts."""
    inner = inner_model(model)
    return (
        type(inner) is _decoder(getattr(inner, "config", None))
        and fits_forest(inner, training)
        and _agrees(inner)
    )


def _decoder(config: Any) -> Any:
    """transformers' own class for the configuration, where it asks the head at the last token as all decoders' do."""
    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    usual = isinstance(kind, type) and issubclass(kind, GenericForSequenceClassification)
    return kind if usual and kind.forward is GenericForSequenceClassification.forward else None


def _agrees(model: Any) -> bool:
    config = model.config.get_text_config()
    tokens = [token for token in range(min(40, config.vocab_size)) if token != config.pad_token_id]
    texts = [tuple(tokens[:-1]), tuple(tokens[:-4] + tokens[-1:])]
    try:
        with torch.no_grad():
            found = score_texts(model, texts).float()
            ids = [torch.tensor([text], device=model.device) for text in texts]
            plain = [model(input_ids=one, attention_mask=torch.ones_like(one)).logits for one in ids]
    except NotImplementedError:  # attention of a kind that `fits_forest` cannot tell
        return False
    expected = torch.cat(plain).float()
    return bool((found - expected).abs().max() <= _CLOSE * expected.abs().max())


def read_at(text: Sequence[int], pad: int | None) -> Tokens:
    """The text up to the token at which transformers asks the head: the last one that is not `pad`, wherever it stands."""
    end = len(text)
    while pad is not None and end > 1 and text[end - 1] == pad:
        end -= 1
    return tuple(text[:end])


def score_texts(model: Any, texts: Sequence[Tokens]) -> Tensor:
    """What the head says of each of N texts: (N, labels)."""
    inner = inner_model(model)
    ordered, places = sorted_once(texts)
    forest = plant(ordered, Tree(), device=inner.device)
    hidden = encode_forest(inner, forest)
    scores = _score(inner.score, hidden.index_select(0, forest.ends))
    return scores.index_select(0, torch.tensor(places, device=scores.device))


def _score(head: Any, hidden: Tensor) -> Tensor:
    """In float32 whatever the model computes in: scores beyond 8 that are rounded to bfloat16 are 1/16 apart, and close
    responses would tie."""
    with torch.autocast(hidden.device.type, enabled=False):
        if isinstance(head, torch.nn.Linear):
            bias = None if head.bias is None else head.bias.float()
            return torch.nn.functional.linear(hidden.float(), head.weight.float(), bias)
        weight = next(head.parameters())  # what adapters make of it
        scores: Tensor = head(hidden.to(weight.dtype))
        return scores


def share_beginnings(model: Any) -> None:
    """Let a model that `shares_beginnings` answer a padded batch by `score_texts`.

    It stays a forward of the model itself, so that wrappers (data parallel, adapters, autocast) see an ordinary call.
    """
    inner = inner_model(model)

    @functools.wraps(inner.forward)
    def forward(self: Any, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        pad = self.config.get_text_config().pad_token_id
        texts = [read_at(text, pad) for text in token_lists(input_ids, attention_mask)]
        return SequenceClassifierOutputWithPast(logits=score_texts(self, texts))

    inner.forward = types.MethodType(forward, inner)
