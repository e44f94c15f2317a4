"""Attention of a whole forest in one kernel of a GPU: PyTorch's FlexAttention.

The tokens of a forest lie in the order in which a walk through it meets them, so that those who see token k are all that
lie from k up to the end of its subtree: query q sees k where k <= q < until[k]. One number a token says it all, and the
kernel skips the tiles of 128 x 128 where nobody sees anybody. A GPU that was given block after block (`block_attention.py`)
would wait for the next one most of the time.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

TILE = 128
"""Queries and keys of a tile: FlexAttention's own choice."""


def fuses(device: Any) -> bool:
    """Whether forests on this device are encoded by one kernel: a GPU, with Triton to make the kernel."""
    return torch.device(device).type == "cuda" and importlib.util.find_spec("triton") is not None


def sight(until: Tensor, start: int = 0) -> BlockMask:
    """The mask of the queries that lie from `start` on.

    Args:
        until: (K,), of each key the place behind the last query that sees it; a key sees itself.
        start: how many of the keys are in a cache, and no queries.
    """
    count, keys = len(until) - start, len(until)
    columns = -(-keys // TILE)
    padded = until.new_zeros(columns * TILE)  # the kernel looks behind the last key too; nobody sees what is there
    padded[:keys] = until
    first = torch.as_tensor(start, device=until.device)  # as a number it would be a kernel of its own each time

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place = query + first
        return (key <= place) & (place < padded[key])

    tops = start + TILE * torch.arange(-(-count // TILE), device=until.device)[:, None]  # each tile's first query
    bottoms = (tops + TILE - 1).clamp(max=keys - 1)
    lefts = TILE * torch.arange(columns, device=until.device)
    last, least = padded.view(columns, TILE).amax(1), padded.view(columns, TILE).amin(1)
    # the last tile's keys that are not there are never seen by all
    some = (lefts <= bottoms) & (last > tops)
    every = (lefts + TILE - 1 <= tops) & (least > bottoms)
    some_count, some_index = _ordered(some & ~every)
    every_count, every_index = _ordered(every)
    return BlockMask.from_kv_blocks(
        some_count, some_index, every_count, every_index, TILE, sees, seq_lengths=(count, keys)
    )


def attend_at_once(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float | None) -> Tensor:
    """(1, heads, T, d), keys and values (1, groups, K, d) → (1, heads, T, d)."""
    found: Tensor = _kernel()(
        query,
        key,
        value,
        block_mask=mask,
        scale=scale,
        enable_gqa=query.size(1) != key.size(1),
        # the other kernel is for one token behind many, and for few queries compilation would start anew
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
    )
    return found


@functools.cache
def _kernel() -> Any:
    # without `dynamic`, it would be compiled for each number of tokens
    return torch.compile(flex_attention, dynamic=True)


def _ordered(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) of which tiles → their number in each row, and their columns, those first."""
    index = torch.argsort((~tiles).to(torch.int32), dim=1, stable=True)
    return tiles.sum(1).to(torch.int32)[None, None], index.to(torch.int32)[None, None].contiguous()
