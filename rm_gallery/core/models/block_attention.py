"""Attention in blocks: each a stretch of queries, and the stretches of keys that they see.

Memory and time are those of the blocks, whatever lies between them. Backward computes each block's attention again
and adds its gradients in place, always in one order: through slices of the whole, autograd would fill and add a tensor
of all tokens for every block, which costs more than the attention of short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Span = tuple[int, int]


class Block(NamedTuple):
    """Tokens whose attention is computed together.

    `keys` are the spans of what they see, themselves last; `mask` is (queries, keys), None where each sees all of the
    block before itself and nothing else.
    """

    queries: Span
    keys: list[Span]
    mask: Tensor | None


def attend(
    query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], start: int, scale: float | None
) -> Tensor:
    """(1, heads, T, d), keys and values of some divisor of the heads and `start` + T tokens → (1, heads, T, d).

    The blocks hold each of the T queries once, in their order; the first is number `start`.
    """
    found: Tensor = _Attention.apply(query, key, value, blocks, start, scale)
    return found


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        blocks: Sequence[Block],
        start: int,
        scale: float | None,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.asked = blocks, start, scale
        return torch.cat(
            [
                _block(_queries(query, block, start), _pick(key, block), _pick(value, block), block, scale)
                for block in blocks
            ],
            dim=2,
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value = ctx.saved_tensors
        blocks, start, scale = ctx.asked
        for_query = torch.empty_like(query)
        # sums of many blocks, rounded once
        for_key, for_value = (torch.zeros_like(x, dtype=torch.float32) for x in (key, value))
        for block in blocks:
            with torch.enable_grad():
                own, keys, values = (
                    x.detach().requires_grad_()
                    for x in (_queries(query, block, start), _pick(key, block), _pick(value, block))
                )
                output = _block(own, keys, values, block, scale)
            q, k, v = torch.autograd.grad(output, (own, keys, values), _queries(gradient, block, start))
            _queries(for_query, block, start).copy_(q)
            at = 0
            for first, stop in block.keys:
                for_key[:, :, first:stop] += k[:, :, at : at + stop - first]
                for_value[:, :, first:stop] += v[:, :, at : at + stop - first]
                at += stop - first
        return for_query, for_key.to(key.dtype), for_value.to(value.dtype), None, None, None


def _block(query: Tensor, key: Tensor, value: Tensor, block: Block, scale: float | None) -> Tensor:
    heads = query.size(1) // key.size(1)
    if heads > 1:
        key, value = (x.repeat_interleave(heads, dim=1) for x in (key, value))
    return scaled_dot_product_attention(
        query, key, value, attn_mask=block.mask, is_causal=block.mask is None, scale=scale
    )


def _queries(states: Tensor, block: Block, start: int) -> Tensor:
    return states[:, :, block.queries[0] - start : block.queries[1] - start]


def _pick(states: Tensor, block: Block) -> Tensor:
    pieces = [states[:, :, first:stop] for first, stop in block.keys]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
