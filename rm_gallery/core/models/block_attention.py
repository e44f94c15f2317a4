"""Attention in blocks: each a stretch of queries, and the stretches of keys that they see.

Memory and time are those of the blocks, whatever lies between them. Backward computes each block's attention again
and adds its gradients in place, always in one order: through slices of the whole, autograd would fill and add a tensor
of all tokens for every block, which costs more than the attention of short ones.

On a CPU a block is two products and a softmax in the model's dtype, as in transformers' eager attention, but for short
blocks, whose weights stay in the cache. PyTorch's fused attention takes half as long again to twice as long there in
bfloat16, and four to eight times as long backward (`benchmarks/results/judge.json` has the shares of a whole pass).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Block:
    """Tokens whose attention is computed together.

    `keys` are the spans of what they see, themselves last; `mask` is (queries, keys), None where each sees all of the
    block before itself and nothing else.
    """

    queries: Span
    keys: list[Span]
    mask: Tensor | None
    _bias: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False)

    def to(self, device: Any) -> Block:
        return self if self.mask is None else Block(self.queries, self.keys, self.mask.to(device))

    def bias(self, like: Tensor) -> Tensor:
        """(queries, keys), to be added: 0 or -inf. Made once for all layers."""
        if like.dtype not in self._bias:
            count = self.queries[1] - self.queries[0]
            mask = torch.ones(count, count, dtype=torch.bool).tril() if self.mask is None else self.mask
            self._bias[like.dtype] = additive(mask.to(like.device), like.dtype)
        return self._bias[like.dtype]


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added to weights: 0 where the key is seen, else -inf."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


def runs(places: Iterable[int]) -> list[Span]:
    """The stretches that ascending places make up."""
    found: list[Span] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


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
    groups = key.size(1)
    if query.device.type == "cpu":
        scale = query.size(-1) ** -0.5 if scale is None else scale
        together = (query * scale).reshape(groups, -1, query.size(-1))  # of the heads that share keys
        weights = torch.matmul(together, key[0].mT).view(groups, -1, query.size(2), key.size(2))
        weights += block.bias(query)
        found = torch.matmul(weights.softmax(-1).view(groups, -1, key.size(2)), value[0])
        return found.view(*query.shape[:3], -1)  # values may be of another width
    return attend_plainly(query, key, value, block.mask, scale)


def attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """PyTorch's own attention; `mask` is (queries, keys), None where each query sees the keys up to its own."""
    heads = query.size(1) // key.size(1)
    if heads > 1:
        key, value = (x.repeat_interleave(heads, dim=1) for x in (key, value))
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale
    )


def _queries(states: Tensor, block: Block, start: int) -> Tensor:
    return states[:, :, block.queries[0] - start : block.queries[1] - start]


def _pick(states: Tensor, block: Block) -> Tensor:
    pieces = [states[:, :, first:stop] for first, stop in block.keys]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
