"""The distinct prompts of a batch, laid out so that what some of them begin with is encoded once.

The responses to one question are judged under prompts that agree up to the response: system message, instruction
and question are then a stem of several prompts. `distinct` finds the distinct prompts; `lay_out` groups those that
share a stem, and lays each out as [stem | rest], both padded on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

_WORTH = 0.15
"""Of the tokens: less is not worth a second pass."""
_MOST = 512
"""Distinct prompts; the search for stems takes the square of their number."""


class Prompts(NamedTuple):
    """P distinct prompts of L columns. The mask may have a gap: padding between stem and rest.

    Attributes:
        ids: (P, L).
        mask: (P, L), zero where there is padding.
        stem: how many columns the stems take; 0 where none is shared.
        groups: (P,), the group of each prompt; those of one group have the same stem.
        firsts: (G,), one prompt of each group.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    stem: int
    groups: torch.Tensor
    firsts: torch.Tensor

    def without_last(self) -> Prompts:
        """Without the last token of each."""
        return self._replace(ids=self.ids[:, :-1], mask=self.mask[:, :-1])


def token_lists(ids: torch.Tensor, mask: torch.Tensor) -> list[tuple[int, ...]]:
    """The rows of a padded batch without padding, which may be any token: only the mask tells it."""
    return [
        tuple(token for token, real in zip(row, keep, strict=True) if real)
        for row, keep in zip(ids.tolist(), mask.bool().tolist(), strict=True)
    ]


def distinct(ids: torch.Tensor, mask: torch.Tensor) -> tuple[list[tuple[int, ...]], list[int]]:
    """The distinct prompts of a padded batch (R, L), sorted, and which of them each of its R rows has."""
    return sorted_once(token_lists(ids, mask))


def sorted_once(texts: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The distinct texts, sorted, and which of them each is."""
    ordered = sorted(set(texts))
    place = {text: i for i, text in enumerate(ordered)}
    return ordered, [place[text] for text in texts]


def lay_out(prompts: Sequence[tuple[int, ...]], device: torch.device, *, stems: bool = True) -> Prompts:
    """Distinct prompts of at least one token, those that share a stem grouped; without `stems`, none does."""
    groups, kept = _stems(prompts) if stems else _alone(len(prompts))
    width = max(kept)
    tail = max(len(prompt) - stem for prompt, stem in zip(prompts, kept, strict=True))
    ids = torch.zeros(len(prompts), width + tail, dtype=torch.long)
    mask = torch.zeros(len(prompts), width + tail, dtype=torch.long)
    for i, (prompt, stem) in enumerate(zip(prompts, kept, strict=True)):
        for part, end in ((prompt[:stem], width), (prompt[stem:], width + tail)):
            ids[i, end - len(part) : end] = torch.tensor(part, dtype=torch.long)
            mask[i, end - len(part) : end] = 1
    members = torch.tensor(groups)
    firsts = torch.tensor([groups.index(group) for group in range(max(groups) + 1)])
    return Prompts(ids.to(device), mask.to(device), width, members.to(device), firsts.to(device))


def _alone(count: int) -> tuple[list[int], list[int]]:
    return list(range(count)), [0] * count


def _stems(prompts: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """The group of each prompt, and how many of its tokens belong to the stem, so that most tokens are saved.

    In alphabetical order, prompts with a common beginning are neighbours. A run of k of them with a stem of s tokens
    saves (k - 1) s; the best cut into runs is found from the end.
    """
    count = len(prompts)
    if not 1 < count <= _MOST or min(map(len, prompts)) < 3:
        return _alone(count)
    order = sorted(range(count), key=lambda i: prompts[i])
    common = [_common(prompts[a], prompts[b]) for a, b in pairwise(order)]
    best: list[tuple[int, int]] = [(0, count)] * (count + 1)  # tokens saved from here on, end of the run
    for start in reversed(range(count)):
        best[start] = (best[start + 1][0], start + 1)
        stem = len(prompts[order[start]])
        for end in range(start + 2, count + 1):
            stem = min(stem, common[end - 2])
            saved = (end - start - 1) * stem + best[end][0]
            if saved > best[start][0]:
                best[start] = (saved, end)
    if best[0][0] < _WORTH * sum(map(len, prompts)):
        return _alone(count)
    groups, stems, start, group = [0] * count, [0] * count, 0, 0
    while start < count:
        end = best[start][1]
        run = order[start:end]
        shared = min(common[start : end - 1]) if len(run) > 1 else 0
        for i in run:
            groups[i], stems[i] = group, shared
        start, group = end, group + 1
    # one that shares nothing is cut where the others are, for less padding
    widest = max(stems)
    return groups, [stem or min(widest, len(prompts[i]) - 2) for i, stem in enumerate(stems)]


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many tokens both begin with, leaving each two of its own: the last one is fed by `generate` itself."""
    most = min(len(a), len(b)) - 2
    return next((i for i in range(most) if a[i] != b[i]), most)
