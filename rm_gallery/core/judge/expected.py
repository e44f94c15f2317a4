"""The log-probability of each legal verdict behind each prompt, exactly, without sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rm_gallery.core.models.forest import batches, encode_root, plant, root
from rm_gallery.core.models.scoring import score_answers, verdict_log_probs
from rm_gallery.core.models.tree import Tree

Weighed = Iterator[dict[int, list[float]]]


def weigh_together(model: Any, prompts: Sequence[tuple[int, ...]], tree: Tree, budget: int) -> Weighed:
    """Prompts in batches of about `budget` tokens, what they begin with alike encoded once, none padded."""
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    ordered = [prompts[i] for i in order]
    parts = batches(ordered, tree, budget)
    rooted, cache = root(ordered) if len(parts) > 1 else 0, None
    if rooted:
        with torch.no_grad():
            cache = encode_root(model, ordered[0][:rooted])
    for part in parts:
        with torch.no_grad():
            forest = plant([ordered[i] for i in part], tree, rooted=rooted, device=model.device)
            found = verdict_log_probs(model, forest, tree, cache).tolist()
        yield dict(zip((order[i] for i in part), found, strict=True))


def weigh_alone(model: Any, prompts: Sequence[tuple[int, ...]], tree: Tree) -> Weighed:
    """One prompt at a time, its verdicts as rows behind it: for attention of any kind."""
    texts = [[tree.edges[edge][1] for edge in path] for path in tree.paths]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=model.device)
    mask = torch.tensor(
        [[1] * len(text) + [0] * (longest - len(text)) for text in texts], device=model.device
    )
    for i, prompt in enumerate(prompts):
        asked = torch.tensor([prompt] * len(texts), device=model.device)
        with torch.no_grad():
            scores = score_answers(model, asked, torch.ones_like(asked), ids, mask)
        yield {i: scores.log_probs.double().sum(1).tolist()}
