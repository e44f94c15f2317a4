"""Attention of a whole forest in one kernel of a GPU: PyTorch's FlexAttention.

The tokens of a forest lie depth first, so that those who see token k are all that lie from k up to the end of its subtree:
query q sees k where k <= q < until[k]. One number a token says it all, and the kernel skips the tiles of 128 x 128 where
nobody sees anybody. A GPU that was given block after block (`block_attention.py`) would wait for the next one most of the time.

The kernel is made by a compiler for the GPU at hand. So it has to show on a few tokens, forward and backward, that it gives
what plain attention gives; where it does not, plain attention under the whole mask is used, and the log says so.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from rm_gallery.core.models.block_attention import additive, attend_plainly

logger = logging.getLogger("rm_gallery.models")

TILE = 128
"""Queries and keys of a tile: FlexAttention's own choice."""
_COMPILED = 64
"""Kernels at most in one process. PyTorch's own limit of 8 is met by a run with held-out rows: with gradients and without,
in either dtype, behind a cache. Beyond it, every score would be written to memory."""
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far the kernel may be from plain attention, in shares of the largest value."""


@dataclass(frozen=True, eq=False)
class ForestMask:
    """Who sees whom among K tokens, of which the first `start` are in a cache and no queries.

    Attributes:
        until: (K,), of each token the place behind the last one that sees it; a token sees itself.
        tiles: the same for the kernel.
    """

    until: Tensor
    start: int
    tiles: BlockMask
    _bias: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, until: Tensor, start: int = 0) -> ForestMask:
        return cls(until, start, _tiles(until, start))

    def dense(self) -> Tensor:
        """(queries, keys): true where the query sees the key."""
        keys = torch.arange(len(self.until), device=self.until.device)
        queries = keys[self.start :, None]
        return (keys <= queries) & (queries < self.until)

    def bias(self, dtype: torch.dtype) -> Tensor:
        """(queries, keys), to be added: 0 or -inf. Made once for all layers."""
        if dtype not in self._bias:
            self._bias[dtype] = additive(self.dense(), dtype)
        return self._bias[dtype]


def can_fuse(device: Any) -> bool:
    """Whether forests on this device are read by one kernel: a GPU, with Triton to make it."""
    return torch.device(device).type == "cuda" and importlib.util.find_spec("triton") is not None


def attend_fused(query: Tensor, key: Tensor, value: Tensor, mask: ForestMask, scale: float | None) -> Tensor:
    """(1, heads, T, d), keys (1, groups, K, d), values (1, groups, K, e) → (1, heads, T, e)."""
    sizes = (query.size(1), key.size(1), query.size(-1), value.size(-1))
    if kernel_is_right(query.device, query.dtype, sizes, scale):
        return _by_kernel(query, key, value, mask, scale)
    return _plainly(query, key, value, mask, scale)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, mask: ForestMask, scale: float | None) -> Tensor:
    found: Tensor = _kernel()(
        query,
        key,
        value,
        block_mask=mask.tiles,
        # the usual one is known to the compiler, another would be an input of the kernel
        scale=None if scale == query.size(-1) ** -0.5 else scale,
        enable_gqa=query.size(1) != key.size(1),
        # the other kernel is for one token behind many, and for few queries compilation would start anew
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
    )
    return found


def _plainly(query: Tensor, key: Tensor, value: Tensor, mask: ForestMask, scale: float | None) -> Tensor:
    return attend_plainly(query, key, value, mask.bias(query.dtype), scale)


@functools.cache
def _kernel() -> Any:
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _COMPILED)
    # without `dynamic`, it would be compiled for each number of tokens
    return torch.compile(flex_attention, dynamic=True)


@functools.cache
def kernel_is_right(
    device: torch.device, dtype: torch.dtype, sizes: tuple[int, int, int, int], scale: float | None
) -> bool:
    """Whether the kernel gives what plain attention gives, and the same gradients, also behind a cache. Asked once of each
    kind; `sizes` are heads, groups, and the widths of keys and values."""
    heads, groups, width, value_width = sizes
    count = 3 * TILE + 7
    until = torch.full((count,), count, device=device)
    until[40:200], until[200:215], until[215:230] = 200, 215, 230
    generator = torch.Generator(device).manual_seed(0)

    def drawn(number: int, size: int) -> Tensor:
        shape = (1, count, number, size)  # as a model's layers lay them out
        return torch.randn(shape, generator=generator, device=device, dtype=dtype).transpose(1, 2)

    query, key, value = drawn(heads, width), drawn(groups, width), drawn(groups, value_width)
    weight = drawn(heads, value_width)

    def results(attend: Any) -> list[Tensor]:
        given = [x.detach().requires_grad_() for x in (query, key, value)]
        # as if asked from outside: in the middle of a model, gradients may be off, or checkpoints keep what is saved
        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved),
        ):
            output = attend(*given, ForestMask.of(until), scale)
            gradients = torch.autograd.grad(output, given, weight)
        with torch.no_grad():
            behind = attend(query[:, :, 50:], key, value, ForestMask.of(until, 50), scale)
        return [output.detach(), *gradients, behind]

    try:
        pairs = zip(results(_by_kernel), results(_plainly), strict=True)
        off = [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]
        # a NaN is not close either
        close = all(each <= _CLOSE.get(dtype, 0.0) for each in off)
        shown = ", ".join(f"{each:.1e}" for each in off)
        why = (
            None
            if close
            else f"output, gradients and output behind a cache are off by {shown} of the largest value"
        )
    except Exception as error:  # noqa: BLE001 - of whatever compiler: there is another way
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if why is None:
        return True
    logger.warning(
        "FlexAttention cannot be used here for %d heads of %d in %s (%s): attention is computed under the whole mask, "
        "which is slower and takes memory with the square of the tokens of a pass",
        heads,
        width,
        str(dtype).removeprefix("torch."),
        why,
    )
    return False


def _tiles(until: Tensor, start: int) -> BlockMask:
    count, keys = len(until) - start, len(until)
    columns = -(-keys // TILE)
    padded = until.new_zeros(columns * TILE)  # whole tiles; nobody sees what is not there
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
    every = (lefts + TILE - 1 <= tops) & (least > bottoms)
    return BlockMask.from_kv_blocks(
        *_ordered(some & ~every), *_ordered(every), TILE, sees, seq_lengths=(count, keys)
    )


def _ordered(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) of which tiles → their number in each row, and their columns, those first."""
    index = torch.argsort((~tiles).to(torch.int32), dim=1, stable=True)
    return tiles.sum(1).to(torch.int32)[None, None], index.to(torch.int32)[None, None].contiguous()
