"""Score and continue many completions of few prompts, with each distinct prompt encoded once.

The samples of a GRPO group, like the legal verdicts of one question, share their prompt. Here the prompt's keys
and values are computed once, then repeated for its completions; gradients flow back through the repetition. The
result equals the plain computation of every (prompt, completion) row up to rounding: attention of a completion
token over the prompt sees the same keys and values either way, because a causal prompt does not see what follows.

Prompts that begin alike, as those of one question's responses, share that stem too (`prompts.py`).

Shapes: P distinct prompts of L tokens; R completions of K tokens, padded on the right; `rows[r]` is the prompt of
completion r.
"""

from __future__ import annotations

import functools
import types
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.prompts import Prompts
from rm_gallery.core.models.tree import Tree
from rm_gallery.core.models.weights import inner_model

_TOKENS_PER_CHUNK = 1024
"""Verdict positions projected to the vocabulary at once: 1,024 x 150k x 4 bytes is 0.6 GB."""
_ARGUMENTS = ("prompts", "completion_ids", "completion_mask", "temperature")
# Models with one of these set transform their logits after the head; the plain computation knows how.
_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class TokenScores(NamedTuple):
    """Per completion token, (R, K), zero where `completion_mask` is: log-probability and entropy in nats, and whether
    no token is likelier."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    likeliest: torch.Tensor


def add_shared_prefix(model: Any) -> None:
    """Let `model(..., prefix_rows=rows, …)` return `TokenScores`; without that argument nothing changes.

    It is a forward of the model itself, not a function beside it, so that wrappers (data parallel, sharding,
    adapters, autocast) see an ordinary call.

    Raises:
        ConfigError: the model transforms its logits in a way that is not reproduced here.
    """
    check_logits(model)
    original = model.forward

    @functools.wraps(original)  # `generate` validates its arguments against the signature
    def forward(self: Any, *args: Any, prefix_rows: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if prefix_rows is None:
            return original(*args, **kwargs)
        # PEFT hands on its own arguments (input_ids=None, …) beside ours
        ours = {name: kwargs[name] for name in _ARGUMENTS}
        return score_completions(self, prefix_rows, **ours)

    model.forward = types.MethodType(forward, model)


def check_logits(model: Any) -> None:
    """Refuse a model whose logits are not its head's output alone. Raises `ConfigError`."""
    present = logit_transforms(model)
    if present:
        raise ConfigError(f"this model sets {', '.join(present)}: set model.shared_prefix to false for it")


def logit_transforms(model: Any) -> list[str]:
    """The settings by which the model changes its logits after its head."""
    config = model.config.get_text_config()
    return [name for name in _LOGIT_TRANSFORMS if getattr(config, name, None) not in (None, 1.0)]


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


def score_completions(
    model: Any,
    rows: torch.Tensor,
    *,
    prompts: Prompts,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    temperature: float = 1.0,
) -> TokenScores:
    """Log-probabilities of the completions under `model`, each prompt encoded once (shapes: see the module)."""
    cache, last = encode_prompts(model, prompts, rows)
    hidden = last.unsqueeze(1)
    if completion_ids.size(1) > 1:
        mask = torch.cat([prompts.mask[rows], completion_mask[:, :-1]], dim=1)
        positions = (mask.cumsum(1) - 1)[:, prompts.ids.size(1) :]
        output = inner_model(model).base_model(
            input_ids=completion_ids[:, :-1],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        hidden = torch.cat([hidden, output.last_hidden_state], dim=1)
    real = completion_mask.bool()
    log_probs, entropy, likeliest = project_labels(
        model.get_output_embeddings(), hidden[real], completion_ids[real], temperature
    )
    # masked_scatter keeps the result connected to the model even where no token is real
    blank = hidden.new_zeros(real.shape, dtype=torch.float32) + 0 * hidden[..., 0].float()
    still = blank.detach()
    return TokenScores(
        blank.masked_scatter(real, log_probs),
        still.masked_scatter(real, entropy),
        still.bool().masked_scatter(real, likeliest),
    )


def project_labels(
    head: Any, hidden: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probability of each label, entropy of its distribution, whether it is the likeliest token.

    `hidden` is (N, D), `labels` (N,); each result is (N,). Goes in chunks that backward recomputes, so that
    memory does not grow with N times the vocabulary.
    """

    def chunk(h: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = head(h).float() / temperature
        normaliser = logits.logsumexp(-1)
        chosen = logits.gather(-1, y.unsqueeze(-1)).squeeze(-1) - normaliser
        with torch.no_grad():
            entropy = normaliser - (torch.softmax(logits, -1) * logits).sum(-1)
            likeliest = logits.argmax(-1) == y
        return chosen, entropy, likeliest

    pieces = list(zip(hidden.split(_TOKENS_PER_CHUNK), labels.split(_TOKENS_PER_CHUNK), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        results = [chunk(h, y) for h, y in pieces]
    else:
        results = [checkpoint(chunk, h, y, use_reentrant=False) for h, y in pieces]
    chosen, entropy, likeliest = (torch.cat(parts) for parts in zip(*results, strict=True))
    return chosen, entropy, likeliest


def project_edges(head: Any, hidden: torch.Tensor, tree: Tree) -> torch.Tensor:
    """Log-probabilities (P, E) of the tree's edges behind each of P prompts, in float32.

    `hidden` is (P, 1 + N, D): at the prompt's end, then at the tree's tokens. The head computes in its own dtype, also
    under autocast: logits rounded to bfloat16 are a tenth apart, and verdicts would tie.
    """
    sources = torch.tensor([1 + where for where, _ in tree.edges], device=hidden.device)
    labels = torch.tensor([token for _, token in tree.edges], device=hidden.device)

    def chunk(h: torch.Tensor) -> torch.Tensor:
        logits = head(h).float()
        return logits[:, sources, labels] - logits.logsumexp(-1)[:, sources]

    with torch.autocast(hidden.device.type, enabled=False):
        pieces = hidden.to(head.weight.dtype).split(max(1, _TOKENS_PER_CHUNK // hidden.size(1)))
        if len(pieces) == 1 or not torch.is_grad_enabled():
            return torch.cat([chunk(piece) for piece in pieces])
        return torch.cat([checkpoint(chunk, piece, use_reentrant=False) for piece in pieces])
