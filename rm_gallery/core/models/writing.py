"""What models write behind prompts, by transformers' `generate`, with the prompt of many samples encoded once.

On a CPU the samples of a prompt grow as a tree behind it (`forest.py`): those that agree so far are one node, and the
prompt's keys and values lie there once. Verdicts of one judge differ in a token or two, and copying the cache for every
sample cost more than computing the next token. Which token comes next, and where an answer ends, is `generate`'s: its
processors see every row, and the same seed draws what it draws without us.

Elsewhere, and where attention is not the plain one, the prompt's cache is repeated for its samples
(`shared_prefix.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from rm_gallery.core.models.block_attention import Block, Span, runs
from rm_gallery.core.models.forest import fits_forest, plant, read_tokens, spans_of
from rm_gallery.core.models.prompts import lay_out, sorted_once
from rm_gallery.core.models.scoring import logit_transforms
from rm_gallery.core.models.shared_prefix import encode_prompts, may_share_stems, repeatable
from rm_gallery.core.models.tree import Tree
from rm_gallery.core.models.weights import inner_model

Tokens = tuple[int, ...]


def grows(model: Any) -> bool:
    """Whether the samples of a prompt cost what they differ in, and not each as much as one of another prompt."""
    inner = inner_model(model)  # its head alone is asked, and not what it makes of the logits
    return inner.device.type == "cpu" and fits_forest(model) and not logit_transforms(inner)


def write(
    model: Any,
    prompts: Sequence[Tokens],
    rows: Sequence[int],
    *,
    config: Any,
    processors: Any = None,
    until: Callable[[Sequence[int]], bool] | None = None,
) -> list[list[int]]:
    """The tokens that `model` writes behind `prompts[row]` for each of `rows`, padded behind their end.

    `config` is transformers' `GenerationConfig`, `processors` its `LogitsProcessorList`. An answer also ends where `until`
    is true of its tokens so far.
    """
    device = model.device
    tree = grows(model)
    stems = not tree and may_share_stems(model, prompts, config.max_new_tokens or config.max_length)
    laid, index = lay_out(prompts, device, stems=stems), torch.tensor(rows, device=device)
    asked = {
        "input_ids": laid.ids[index],
        "attention_mask": laid.mask[index],
        "generation_config": config,
        "logits_processor": LogitsProcessorList() if processors is None else processors,
        "stopping_criteria": StoppingCriteriaList([] if until is None else [_Until(until, laid.ids.size(1))]),
    }
    with torch.no_grad():
        if tree:
            grow = functools.partial(_grow, prompts=prompts, rows=rows)
            output = model.generate(**asked, custom_generate=grow)
        elif not repeatable(model):
            output = model.generate(**asked)
        else:
            # all but the last token: `generate` takes the cache and goes on from there
            cache, _ = encode_prompts(model, laid.without_last(), index)
            output = model.generate(**asked, past_key_values=cache)
    written: list[list[int]] = output[:, laid.ids.size(1) :].tolist()
    return written


class _Until(StoppingCriteria):  # type: ignore[misc]
    """Ends the rows whose tokens behind a prompt of `start` columns are an answer."""

    def __init__(self, ends: Callable[[Sequence[int]], bool], start: int) -> None:
        self.ends = ends
        self.start = start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        found = [self.ends(row) for row in input_ids[:, self.start :].tolist()]
        return torch.tensor(found, dtype=torch.bool, device=input_ids.device)


class _Node(NamedTuple):
    """A text so far: its prompt, and where the tokens behind that lie in the cache."""

    prompt: int
    path: tuple[int, ...]


def _grow(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    *,
    prompts: Sequence[Tokens],
    rows: Sequence[int],
    **_: Any,
) -> torch.Tensor:
    """A decoding method for `generate`: (R, L) → (R, L + new)."""
    ordered, places = sorted_once(prompts)
    forest = plant(ordered, Tree(), device=input_ids.device)
    spans, lengths = spans_of(forest), [len(prompt) for prompt in ordered]
    cache = DynamicCache()
    hidden = read_tokens(model, forest.ids, forest.positions, forest.blocks, cache)[forest.ends]
    nodes = [_Node(i, ()) for i in range(len(ordered))]
    where = [places[row] for row in rows]  # the node of each row
    head = inner_model(model).get_output_embeddings()
    pad = generation_config._pad_token_tensor  # as `generate`'s own methods read it
    going = torch.ones(len(rows), dtype=torch.bool, device=input_ids.device)
    while True:
        scores = head(hidden).float().index_select(0, torch.tensor(where, device=hidden.device))
        scores = logits_processor(input_ids, scores)
        if generation_config.do_sample:
            tokens = torch.multinomial(scores.softmax(-1), num_samples=1).squeeze(1)
        else:
            tokens = scores.argmax(-1)
        tokens = torch.where(going, tokens, tokens if pad is None else pad)
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
        going = going & ~stopping_criteria(input_ids, None)
        if not going.any():
            return input_ids
        texts: dict[tuple[int, tuple[int, ...], int], list[int]] = {}
        for row, (token, on) in enumerate(zip(tokens.tolist(), going.tolist(), strict=True)):
            if on:
                texts.setdefault((*nodes[where[row]], token), []).append(row)
        start = cache.get_seq_length()
        found = sorted(texts)  # those of a prompt are neighbours
        nodes = [_Node(prompt, (*path, start + i)) for i, (prompt, path, _) in enumerate(found)]
        where = [0] * len(rows)  # of rows that have ended, anything
        for i, text in enumerate(found):
            for row in texts[text]:
                where[row] = i
        device = input_ids.device
        hidden = read_tokens(
            model,
            torch.tensor([token for *_, token in found], device=device),
            torch.tensor([lengths[node.prompt] + len(node.path) - 1 for node in nodes], device=device),
            _behind(nodes, spans, lengths),
            cache,
        )


def _behind(nodes: Sequence[_Node], spans: Sequence[list[Span]], lengths: Sequence[int]) -> list[Block]:
    """Attention of the newest nodes: each sees its prompt and its own path."""
    blocks = []
    for prompt, members in groupby(nodes, key=lambda node: node.prompt):
        own = list(members)
        places = sorted({place for node in own for place in node.path})
        column = {place: lengths[prompt] + i for i, place in enumerate(places)}
        mask = torch.zeros(len(own), lengths[prompt] + len(places), dtype=torch.bool)
        mask[:, : lengths[prompt]] = True
        for row, node in enumerate(own):
            mask[row, [column[place] for place in node.path]] = True
        first = own[0].path[-1]
        blocks.append(Block((first, first + len(own)), [*spans[prompt], *runs(places)], mask))
    return blocks
