"""What models give to the reasonings that they wrote, and to every verdict behind each of them, in one pass.

The reasonings behind a prompt are a tree, and each that came to its end has the tree of the verdicts behind it; a prompt
and its trees are part of a forest (`forest.py`). So the prompt is encoded once, and each reasoning once for all verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rm_gallery.core.models.scoring import extend_forward, project_labels, read_trees
from rm_gallery.core.models.tree import Tree
from rm_gallery.core.models.weights import inner_model

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Reasoning:
    """What a model wrote before its verdict.

    Attributes:
        tokens: up to and with the one that ends it.
        verdicts: the tokens of each verdict's text behind it; None where it never came to its end.
    """

    tokens: Tokens
    verdicts: tuple[Tokens, ...] | None = None

    def texts(self) -> list[Tokens]:
        """What is to be read."""
        if self.verdicts is None:
            return [self.tokens]
        return [self.tokens + verdict for verdict in self.verdicts]


@dataclass(frozen=True)
class Asked:
    """S reasonings, each with its prompt; the tokens of all are N, and C of them came to their end."""

    prompts: tuple[Tokens, ...]
    reasonings: tuple[Reasoning, ...]


class Weighed(NamedTuple):
    """Log-probabilities, in float64 those of verdicts.

    Attributes:
        tokens: (N,), of each token of one reasoning after the other.
        entropy: (N,), of the distribution that it is from, in nats.
        verdicts: (C, K), of the whole texts of verdicts, given the reasoning before them.
    """

    tokens: Tensor
    entropy: Tensor
    verdicts: Tensor


def weigh_reasonings(model: Any, asked: Asked) -> Weighed:
    """All of it under `model`, at temperature 1."""
    members: dict[Tokens, list[int]] = {prompt: [] for prompt in sorted(set(asked.prompts))}
    for i, prompt in enumerate(asked.prompts):
        members[prompt].append(i)
    texts = [reasoning.texts() for reasoning in asked.reasonings]
    trees = [Tree.of([text for i in own for text in texts[i]]) for own in members.values()]
    hidden, labels, starts = read_trees(model, list(members), trees)
    paths: list[list[list[int]]] = [[] for _ in texts]
    for own, tree, start in zip(members.values(), trees, starts, strict=True):
        found = iter(tree.paths)
        for i in own:
            paths[i] = [[start + edge for edge in next(found)] for _ in texts[i]]
    lengths = [len(reasoning.tokens) for reasoning in asked.reasonings]
    tokens = [edge for each, length in zip(paths, lengths, strict=True) for edge in each[0][:length]]
    verdicts = [
        [path[length:] for path in each]
        for each, length, reasoning in zip(paths, lengths, asked.reasonings, strict=True)
        if reasoning.verdicts is not None
    ]
    head = inner_model(model).get_output_embeddings()
    log_probs, entropy = _edges(head, hidden, labels, tokens)
    # in the head's own dtype: logits rounded to bfloat16 are a tenth apart, and verdicts would tie
    with torch.autocast(hidden.device.type, enabled=False):
        summed = _sums(head, hidden.to(head.weight.dtype), labels, verdicts)
    return Weighed(log_probs, entropy, summed)


def _edges(head: Any, hidden: Tensor, labels: Tensor, edges: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of each of the edges, one that is asked for several times computed once."""
    if not edges:
        return hidden.new_zeros(0, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.float32)
    distinct, places = torch.tensor(edges, device=hidden.device).unique(return_inverse=True)
    log_probs, entropy, _ = project_labels(
        head, hidden.index_select(0, distinct), labels.index_select(0, distinct)
    )
    return log_probs.index_select(0, places), entropy.index_select(0, places)


def _sums(head: Any, hidden: Tensor, labels: Tensor, paths: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """(C, K): the sums over the edges of each path, in float64."""
    if not paths:
        return hidden.new_zeros(0, 0, dtype=torch.float64)
    flat = [path for each in paths for path in each]
    log_probs, _ = _edges(head, hidden, labels, [edge for path in flat for edge in path])
    blank = torch.cat([log_probs.double(), log_probs.new_zeros(1, dtype=torch.float64)])
    width = max(map(len, flat))
    places, at = torch.full((len(flat), width), len(log_probs)), 0
    for row, path in enumerate(flat):
        places[row, : len(path)] = torch.arange(at, at + len(path))
        at += len(path)
    return blank.index_select(0, places.flatten().to(blank.device)).view(len(paths), -1, width).sum(-1)


def add_reasonings(model: Any) -> None:
    """Let `model(asked=…)` return `Weighed`."""
    extend_forward(model, "asked", weigh_reasonings)
