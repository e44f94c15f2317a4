"""Where the tokens of a forest lie, and who sees whom, in spans and blocks of them (`block_attention.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rm_gallery.core.models.block_attention import Block, Span, runs
from rm_gallery.core.models.tree import END, Tree


def cut(own: Span, spans: Sequence[Span], kept: int, size: int) -> list[Block]:
    """Blocks of up to `size` queries for the tokens `own` that a prompt adds to the `kept` ones before it."""
    found = []
    for start in range(own[0], own[1], size):
        stop = min(start + size, own[1])
        before = kept + start - own[0]
        mask = _behind(before, torch.ones(stop - start, stop - start, dtype=torch.bool).tril())
        found.append(Block((start, stop), first_of(spans, kept + stop - own[0]), mask if before else None))
    return found


def branches(start: int, spans: Sequence[Span], count: int, seen: torch.Tensor, size: int) -> list[Block]:
    """Blocks of up to `size` queries for the nodes of a tree, laid out from `start` behind a prompt of `count`."""
    found = []
    for first in range(0, len(seen), size):
        stop = min(first + size, len(seen))
        own = seen[first:stop]
        # the ancestors that lie before these nodes: other branches are left out
        columns = own.any(0)
        keys = list(spans)
        for a, b in runs(columns.nonzero().flatten().tolist()):
            keys = joined(keys, (start + a, start + b))
        found.append(Block((start + first, start + stop), keys, _behind(count, own[:, columns])))
    return found


def joined(spans: Sequence[Span], more: Span) -> list[Span]:
    if spans and spans[-1][1] == more[0]:
        return [*spans[:-1], (spans[-1][0], more[1])]
    return [*spans, more]


def first_of(spans: Sequence[Span], count: int) -> list[Span]:
    """The spans of the first `count` tokens."""
    found = []
    for start, stop in spans:
        if count <= 0:
            break
        found.append((start, min(stop, start + count)))
        count -= stop - start
    return found


def rest_of(spans: Sequence[Span], count: int) -> list[Span]:
    """The spans of all tokens but the first `count`."""
    found = []
    for start, stop in spans:
        if stop - start > count:
            found.append((start + count, stop))
        count = max(0, count - (stop - start))
    return found


def reach(tree: Tree) -> torch.Tensor:
    """(N,): one past the last descendant of each node."""
    found = list(range(1, len(tree.tokens) + 1))
    for node in reversed(range(len(found))):
        parent = tree.parents[node]
        if parent != END:
            found[parent] = max(found[parent], found[node])
    return torch.tensor(found)


def visible(tree: Tree) -> torch.Tensor:
    """(N, N): whether the token of the row sees that of the column."""
    seen = torch.eye(len(tree.tokens), dtype=torch.bool)
    for node, parent in enumerate(tree.parents):
        if parent != END:
            seen[node] |= seen[parent]
    return seen


def _behind(count: int, mask: torch.Tensor) -> torch.Tensor:
    """`mask` with `count` columns before it that everyone sees."""
    return torch.cat([torch.ones(len(mask), count, dtype=torch.bool), mask], dim=1)
