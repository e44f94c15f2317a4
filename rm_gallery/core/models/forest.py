"""Many prompts, and a tree of continuations behind each, encoded in one pass without padding.

The tokens of a batch lie in one row. Each sees its ancestors and itself: what prompts begin with alike (a rubric, a
query, the first response) lies there once, and so does what continuations of one prompt begin with. Only attention
needs to know (`block_attention.py`, on a GPU `fused_attention.py`); everything else in a language model works on each
token alone. So the cost is that of the distinct tokens, and the result equals that of each text on its own up to rounding.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface

from rm_gallery.core.models.block_attention import Block, Span, attend
from rm_gallery.core.models.fused_attention import ForestMask, attend_fused, can_fuse
from rm_gallery.core.models.layout import branches, cut, first_of, joined, reach, rest_of, visible
from rm_gallery.core.models.tree import Tree, common
from rm_gallery.core.models.weights import inner_model

_NAME = "rm_gallery_forest"
_WORTH = 16
"""Tokens in common: fewer are encoded again, which costs less than attention in two pieces."""
_QUERIES = {"cpu": 64}
"""Tokens whose attention is computed together, by device: a CPU computes the whole rectangle of queries and keys, also
what the mask hides, in its cache; a GPU skips most of it and would rather be asked less often."""
_UNKNOWN = ("sliding_window", "softcap", "s_aux", "position_bias")
"""What an attention layer may ask for beside the plain thing."""


class Forest(NamedTuple):
    """T tokens for P prompts, each with a tree.

    Attributes:
        ids: (T,).
        positions: (T,), how many tokens each has before it in its own text.
        until: (C + T,), those of the cache it is rooted in first: the place behind the last token that sees each.
        blocks: over all tokens, in order; none where one kernel reads all of them and goes by `until`.
        ends: (P,), where the last token of each prompt lies.
        nodes: for each prompt (N,), where the nodes of its tree lie.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    until: torch.Tensor
    blocks: tuple[Block, ...]
    ends: torch.Tensor
    nodes: tuple[torch.Tensor, ...]

    def readings(self) -> torch.Tensor:
        """(P, 1 + N): where the prompt ends and where its tree's nodes lie, where all trees are of N nodes."""
        return torch.cat([self.ends.unsqueeze(1), torch.stack(self.nodes)], dim=1)


def shared(before: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens of `prompt` need not be encoded where `before` is."""
    found = common(before, prompt)
    return found if found >= _WORTH else 0


def root(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all of the sorted `prompts` begin with, each keeping one of its own; 0 where not worth it."""
    found = min(common(prompts[0], prompts[-1]), len(prompts[0]) - 1)
    return found if found >= _WORTH else 0


def batches(prompts: Sequence[Sequence[int]], tree: Tree, budget: int) -> list[range]:
    """Cut sorted prompts into ranges whose forests have about `budget` tokens; a prompt of more is alone."""
    found, start, load = [], 0, 0
    for i, prompt in enumerate(prompts):
        whole = len(prompt) + len(tree.tokens)
        more = whole - shared(prompts[i - 1], prompt) if i > start else whole
        if i > start and load + more > budget:
            found.append(range(start, i))
            start, load, more = i, 0, whole
        load += more
    return [*found, range(start, len(prompts))] if prompts else []


def plant(
    prompts: Sequence[Sequence[int]], trees: Tree | Sequence[Tree], *, rooted: int = 0, device: Any = "cpu"
) -> Forest:
    """Lay out distinct prompts, sorted, so that those that begin alike are neighbours.

    `trees` is one for each prompt, or the same for all. The first `rooted` tokens, the same in all, are in a cache
    already.
    """
    if isinstance(trees, Tree):
        trees = [trees] * len(prompts)
    together = _QUERIES.get(torch.device(device).type)
    fused = can_fuse(device)
    seen, reached = functools.cache(visible), functools.cache(reach)
    ids: list[int] = []
    positions: list[torch.Tensor] = []
    blocks: list[Block] = []
    ends, nodes = [], []
    seen_until: list[tuple[Span, Any]] = []
    spans: list[Span] = [(0, rooted)] if rooted else []  # where the tokens of the prompt before lie
    before: Sequence[int] = ()
    for prompt, tree in zip(prompts, trees, strict=True):
        kept = max(shared(before, prompt), rooted)
        own = (rooted + len(ids), rooted + len(ids) + len(prompt) - kept)
        seen_until += [(span, own[0]) for span in rest_of(spans, kept)]
        spans = joined(first_of(spans, kept), own)
        if not fused:
            blocks += cut(own, spans, kept, together or len(prompt))
        ids += prompt[kept:]
        positions.append(torch.arange(kept, len(prompt)))
        ends.append(own[1] - 1 - rooted)
        if tree.tokens:
            if not fused:
                blocks += branches(own[1], spans, len(prompt), seen(tree), together or len(tree.tokens))
            seen_until.append(((own[1], own[1] + len(tree.tokens)), own[1] + reached(tree)))
            ids += tree.tokens
            positions.append(len(prompt) - 1 + torch.tensor(tree.depths()))
        nodes.append(torch.arange(len(tree.tokens), device=device) + (own[1] - rooted))
        before = prompt
    until = torch.full((rooted + len(ids),), rooted + len(ids))
    for (start, stop), place in seen_until:
        until[start:stop] = place
    return Forest(
        torch.tensor(ids, device=device),
        torch.cat(positions).to(device),
        until.to(device),
        tuple(block.to(device) for block in blocks),
        torch.tensor(ends, device=device),
        tuple(nodes),
    )


def spans_of(forest: Forest) -> list[list[Span]]:
    """Where the tokens of each whole prompt lie."""
    ends = {block.queries[1] - 1: block.keys for block in forest.blocks}
    return [ends[end] for end in forest.ends.tolist()]


def fits_forest(model: Any, training: bool | None = None) -> bool:
    """Whether the model's attention is the plain one, in all layers, and can be replaced: now, or in `training`."""
    model = inner_model(model)
    return plain_attention(type(model), model.config, model.training if training is None else training)


def plain_attention(kind: Any, config: Any, training: bool) -> bool:
    """As `fits_forest`, of a class of models and a configuration."""
    config = config.get_text_config()
    causal = getattr(config, "is_causal", True)  # transformers lets a decoder read from both ends
    softcap = getattr(config, "attn_logit_softcapping", None) is not None
    drops = training and getattr(config, "attention_dropout", 0.0) > 0
    plain = bool(kind._supports_attention_backend) and not windowed(config)
    return causal and plain and not softcap and not drops


def windowed(config: Any) -> bool:
    """Whether a layer does not see all that stands before a token."""
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return set(kinds) != {"full_attention"}
    return getattr(config, "sliding_window", None) is not None


def encode_forest(model: Any, forest: Forest, cache: Any = None) -> torch.Tensor:
    """The last hidden states (T, D). `cache` holds what the forest is rooted in, and is left as it was.

    Under gradient checkpointing, backward has to be inside `forest_attention` too: it computes attention anew.
    """
    rooted = len(forest.until) - len(forest.ids)
    attended = forest.blocks or ForestMask.of(forest.until, rooted)
    hidden = read_tokens(model, forest.ids, forest.positions, attended, cache)
    if cache is not None:
        cache.crop(-len(forest.ids))
    return hidden


def read_tokens(
    model: Any, ids: torch.Tensor, positions: torch.Tensor, attended: Any, cache: Any = None
) -> torch.Tensor:
    """The last hidden states (T, D) of tokens behind those that are in the cache, where they are afterwards.

    `attended` says what they see: the blocks of all, or a `ForestMask`.
    """
    with forest_attention(model):
        output = inner_model(model).base_model(
            input_ids=ids.unsqueeze(0),
            position_ids=positions.unsqueeze(0),
            past_key_values=cache,
            use_cache=cache is not None,
            forest_attended=attended,
            forest_start=0 if cache is None else cache.get_seq_length(),
        )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden


def encode_root(model: Any, tokens: Sequence[int]) -> Any:
    """The cache of what all prompts begin with, to root forests in."""
    ids = torch.tensor([list(tokens)], device=model.device)
    return inner_model(model).base_model(input_ids=ids, use_cache=True).past_key_values


@contextlib.contextmanager
def forest_attention(model: Any) -> Iterator[None]:
    """While forests are encoded: the model's attention goes by what their tokens see."""
    AttentionInterface.register(_NAME, _attend)
    with attention(model, _NAME):
        yield


@contextlib.contextmanager
def attention(model: Any, name: str) -> Iterator[None]:
    """Meanwhile the model's attention is the one that transformers knows by that name."""
    model = inner_model(model)
    before = model.config._attn_implementation
    if before == name:
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    forest_attended: Any,
    forest_start: int,
    scaling: float | None = None,
    **asked: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: (1, heads, T, d) → (1, T, heads, d)."""
    odd = [name for name in _UNKNOWN if asked.get(name) is not None]
    if odd:
        raise NotImplementedError(f"attention with {', '.join(odd)}: `fits_forest` should have told")
    # transformers makes none for a name that it does not know: it is the model's own
    if attention_mask is not None:
        raise NotImplementedError("attention with a mask of the model's own: `fits_forest` cannot tell")
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotation has made them wider under autocast
    if isinstance(forest_attended, ForestMask):
        found = attend_fused(query, key, value, forest_attended, scaling)
    else:
        found = attend(query, key, value, forest_attended, forest_start, scaling)
    return found.transpose(1, 2), None
