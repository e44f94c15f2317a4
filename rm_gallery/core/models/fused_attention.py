"""Attention of a whole forest in one kernel of a GPU: PyTorch's FlexAttention.

The tokens of a forest lie in the order in which a walk through it meets them, so that those who see token k are all that
lie from k up to the end of its subtree: query q sees k where k <= q < until[k]. One number a token says it all, and the
kernel skips the tiles of 128 x 128 where nobody sees anybody. A GPU that was given block after block (`block_attention.py`)
would wait for the next one most of the time.

The kernel is made by a compiler for the GPU at hand. So it has to show on a few tokens, forward and backward, that it gives
what plain attention gives; where it does not, plain attention under the whole mask is used, and the log says so.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

logger = logging.getLogger("rm_gallery.models")

TILE = 128
"""Queries and keys of a tile: FlexAttention's own choice."""
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far the kernel may be from plain attention, in shares of the largest value."""


class Sight(NamedTuple):
    """Who sees whom among K tokens, of which the first `start` are in a cache and no queries.

    Attributes:
        until: (K,), of each token the place behind the last one that sees it; a token sees itself.
        tiles: the same for the kernel.
    """

    until: Tensor
    start: int
    tiles: BlockMask

    @classmethod
    def of(cls, until: Tensor, start: int = 0) -> Sight:
        return cls(until, start, _tiles(until, start))

    def mask(self) -> Tensor:
        """(queries, keys): true where the query sees the key."""
        keys = torch.arange(len(self.until), device=self.until.device)
        queries = keys[self.start :, None]
        return (keys <= queries) & (queries < self.until)


def fuses(device: Any) -> bool:
    """Whether forests on this device are read by one kernel: a GPU, with Triton to make it."""
    return torch.device(device).type == "cuda" and importlib.util.find_spec("triton") is not None


def attend_at_once(query: Tensor, key: Tensor, value: Tensor, sight: Sight, scale: float | None) -> Tensor:
    """(1, heads, T, d), keys and values (1, groups, K, d) → (1, heads, T, d)."""
    if _holds(query.device, query.dtype, query.size(1), key.size(1), query.size(-1)):
        return _by_kernel(query, key, value, sight, scale)
    return _plainly(query, key, value, sight, scale)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, sight: Sight, scale: float | None) -> Tensor:
    found: Tensor = _kernel()(
        query,
        key,
        value,
        block_mask=sight.tiles,
        scale=scale,
        enable_gqa=query.size(1) != key.size(1),
        # the other kernel is for one token behind many, and for few queries compilation would start anew
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True} if query.device.type == "cuda" else None,
    )
    return found


def _plainly(query: Tensor, key: Tensor, value: Tensor, sight: Sight, scale: float | None) -> Tensor:
    heads = query.size(1) // key.size(1)
    if heads > 1:
        key, value = (x.repeat_interleave(heads, dim=1) for x in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=sight.mask(), scale=scale)


@functools.cache
def _kernel() -> Any:
    # without `dynamic`, it would be compiled for each number of tokens
    return torch.compile(flex_attention, dynamic=True)


@functools.cache
def _holds(device: torch.device, dtype: torch.dtype, heads: int, groups: int, width: int) -> bool:
    """Whether the kernel for such heads gives what plain attention gives, and the same gradients. Asked once of each."""
    count = 3 * TILE + 7
    until = torch.full((count,), count, device=device)
    until[40:200], until[200:230] = 200, 215
    until[215:230] = 230
    generator = torch.Generator(device).manual_seed(0)
    query, key, value, weight = (
        torch.randn(1, n, count, width, generator=generator, device=device, dtype=dtype)
        for n in (heads, groups, groups, heads)
    )
    sight = Sight.of(until)

    def results(attend: Any) -> list[Tensor]:
        given = [x.clone().requires_grad_() for x in (query, key, value)]
        # as if asked from outside: in the middle of a model, gradients may be off, or checkpoints keep what is saved
        with (
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved),
        ):
            output = attend(*given, sight, None)
            return [output.detach(), *torch.autograd.grad(output, given, weight)]

    try:
        pairs = zip(results(_by_kernel), results(_plainly), strict=True)
        off = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
        why = None if off <= _CLOSE.get(dtype, 0.0) else f"it is off by {off:.1e} of the largest value"
    except Exception as error:  # noqa: BLE001 - of whatever compiler: there is another way
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if why is None:
        return True
    logger.warning(
        "FlexAttention cannot be used here for %d heads of %d in %s (%s): attention is computed under the whole mask, "
        "which is slower and takes memory with the square of the tokens",
        heads,
        width,
        str(dtype).removeprefix("torch."),
        why,
    )
    return False


def _tiles(until: Tensor, start: int) -> BlockMask:
    count, keys = len(until) - start, len(until)
    columns = -(-keys // TILE)
    padded = until.new_zeros(
        columns * TILE
    )  # the kernel looks behind the last key too; nobody sees what is there
    padded[:keys] = until
    first = torch.as_tensor(
        start, device=until.device
    )  # as a number it would be a kernel of its own each time

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place = query + first
        return (key <= place) & (place < padded[key])

    tops = (
        start + TILE * torch.arange(-(-count // TILE), device=until.device)[:, None]
    )  # each tile's first query
    bottoms = (tops + TILE - 1).clamp(max=keys - 1)
    lefts = TILE * torch.arange(columns, device=until.device)
    last, least = padded.view(columns, TILE).amax(1), padded.view(columns, TILE).amin(1)
    some = (lefts <= bottoms) & (last > tops)
    every = (lefts + TILE - 1 <= tops) & (least > bottoms)  # not where keys are missing: `least` is 0 there
    return BlockMask.from_kv_blocks(
        *_ordered(some & ~every), *_ordered(every), TILE, sees, seq_lengths=(count, keys)
    )


def _ordered(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) of which tiles → their number in each row, and their columns, those first."""
    index = torch.argsort((~tiles).to(torch.int32), dim=1, stable=True)
    return tiles.sum(1).to(torch.int32)[None, None], index.to(torch.int32)[None, None].contiguous()
