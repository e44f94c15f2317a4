"""Read and continue many completions of few prompts, padded, with each distinct prompt encoded once.

The prompt's keys and values are computed once, then repeated for its completions; gradients flow back through the
repetition. A causal prompt does not see what follows it, so that a completion's token attends to the same keys and
values either way. Prompts that begin alike, as those of one question's responses, share that stem too (`prompts.py`).

`generate` goes on from such a cache, and models whose attention no forest knows (`scoring.py`) are trained on it. Where a
prompt leaves more than keys and values behind (`repeatable`), every row is read from its beginning.

Shapes: P distinct prompts of L tokens; R completions of K tokens, padded on the right; `rows[r]` is the prompt of
completion r.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rm_gallery.core.models.forest import windowed
from rm_gallery.core.models.prompts import Prompts, lay_out
from rm_gallery.core.models.weights import inner_model


def may_share_stems(model: Any, prompts: Sequence[tuple[int, ...]], more: int) -> bool:
    """Whether tokens see all that they should where prompts that begin alike share that, and `more` tokens follow.

    Behind a stem there is padding, and a sliding window counts the cache's columns, padding too. A stem and a rest have
    no more columns than two prompts. What is shared is repeated (`repeatable`).
    """
    config = inner_model(model).config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    seen = not windowed(config) or 2 * max(map(len, prompts)) + more <= window
    return seen and repeatable(model)


def repeatable(model: Any) -> bool:
    """Whether a prompt leaves keys and values of each layer behind, which can be repeated for its completions: not the
    states of recurrent or convolutional layers, nor layers that use another's keys."""
    inner = inner_model(model)
    config = inner.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    own = not getattr(inner, "_is_stateful", False) and not getattr(config, "num_kv_shared_layers", 0)
    return own and kinds <= {"full_attention", "sliding_attention", "chunked_attention"}


def encode_prompts(model: Any, prompts: Prompts, rows: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """Run the backbone over the prompts; returns (cache repeated to R rows, last hidden state (R, D))."""
    ids, mask, stem = prompts.ids, prompts.mask, prompts.stem
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = None
    if stem:
        firsts = prompts.firsts
        output = inner_model(model).base_model(
            input_ids=ids[firsts, :stem],
            attention_mask=mask[firsts, :stem],
            position_ids=positions[firsts, :stem],
            use_cache=True,
        )
        cache = _repeat(output.past_key_values, prompts.groups)
    output = inner_model(model).base_model(
        input_ids=ids[:, stem:],
        attention_mask=mask,
        position_ids=positions[:, stem:],
        past_key_values=cache,
        use_cache=True,
    )
    return _repeat(output.past_key_values, rows), output.last_hidden_state[:, -1].index_select(0, rows)


def _repeat(cache: Any, rows: torch.Tensor) -> Any:
    # index_select, and not the cache's own batch_select_indices or x[rows]: on a CPU the backward of those may add
    # the rows of a group by several threads in any order, and two runs of one seed part ways in the last digits
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)
    return cache


def read_padded(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    rows: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(hidden states where the N real completion tokens are predicted (N, D), these tokens (N,), which of them stands
    where (R, K), -1 where there is none)."""
    device = completion_ids.device
    if not repeatable(model):
        hidden = _read_rows(model, prompts, rows.to(device), completion_ids, completion_mask)
        return _asked(hidden, completion_ids, completion_mask)
    stems = may_share_stems(model, prompts, completion_ids.size(1))
    laid, rows = lay_out(prompts, device, stems=stems), rows.to(device)
    cache, last = encode_prompts(model, laid, rows)
    hidden = last.unsqueeze(1)
    if completion_ids.size(1) > 1:
        mask = torch.cat([laid.mask[rows], completion_mask[:, :-1]], dim=1)
        positions = (mask.cumsum(1) - 1)[:, laid.ids.size(1) :]
        output = inner_model(model).base_model(
            input_ids=completion_ids[:, :-1],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        hidden = torch.cat([hidden, output.last_hidden_state], dim=1)
    return _asked(hidden, completion_ids, completion_mask)


def _asked(
    hidden: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    real = mask.bool()
    places = torch.where(real, real.flatten().cumsum(0).view_as(real) - 1, -1)
    return hidden[real], ids[real], places


def _read_rows(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    rows: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
) -> torch.Tensor:
    """Hidden states (R, K, D) where completion tokens are predicted, each row read from its prompt's beginning."""
    laid = lay_out(prompts, completion_ids.device, stems=False)
    mask = torch.cat([laid.mask[rows], completion_mask[:, :-1]], dim=1)
    output = inner_model(model).base_model(
        input_ids=torch.cat([laid.ids[rows], completion_ids[:, :-1]], dim=1),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    )
    hidden: torch.Tensor = output.last_hidden_state[:, laid.ids.size(1) - 1 :]
    return hidden
