"""Log-probabilities of many answers to few questions, each distinct token computed once.

The samples of a GRPO group, like the legal verdicts of one question, share their prompt, and verdicts begin alike:
`<score>3</score>` and `<score>4</score>` differ in one token of seven. Here they are a forest (`forest.py`): distinct
prompts without padding, what they begin with alike once, behind each the tree of its distinct answers. A model whose
attention is not the plain one in all layers has its prompts padded and encoded once (`shared_prefix.py`). The result
equals the plain computation of every (prompt, answer) row up to rounding.

Shapes: R rows of a prompt of up to L tokens, padded on the left, and an answer of up to K, padded on the right. Only the
masks tell padding.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.forest import Forest, encode_forest, fits_forest, plant
from rm_gallery.core.models.prompts import distinct, token_lists
from rm_gallery.core.models.shared_prefix import read_padded
from rm_gallery.core.models.tree import END, Tree
from rm_gallery.core.models.weights import inner_model

_TOKENS_PER_CHUNK = 1024
"""Positions projected to the vocabulary at once: 1,024 x 150k x 4 bytes is 0.6 GB."""
# Models with one of these set transform their logits after the head; the plain computation knows how.
_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class TokenScores(NamedTuple):
    """Of each answer token, (R, K), zero where `answer_mask` is: log-probability and entropy in nats, and whether no
    token is likelier."""

    log_probs: Tensor
    entropy: Tensor
    likeliest: Tensor


class Read(NamedTuple):
    """What a model has read, up to each of N tokens that it is asked about.

    Attributes:
        hidden: (N, D), where the token is predicted.
        labels: (N,), the tokens.
        places: (R, K), which of them each answer token is; -1 where there is none.
    """

    hidden: Tensor
    labels: Tensor
    places: Tensor


def add_scoring(model: Any) -> None:
    """Let `model(prompt_ids=…, prompt_mask=…, answer_ids=…, answer_mask=…, temperature=…)` return `TokenScores`.

    Raises:
        ConfigError: the model transforms its logits in a way that is not reproduced here.
    """
    check_logits(model)
    extend_forward(model, "prompt_ids", score_answers)


def extend_forward(model: Any, argument: str, answer: Callable[..., Any]) -> None:
    """Let `model(argument=…, …)` return `answer(model, argument=…, …)`; without that argument nothing changes.

    It is a forward of the model itself, not a function beside it, so that wrappers (data parallel, sharding, adapters,
    autocast) see an ordinary call.
    """
    original = model.forward
    known = inspect.signature(answer).parameters

    @functools.wraps(original)  # `generate` validates its arguments against the signature
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get(argument) is None:
            kwargs.pop(argument, None)
            return original(*args, **kwargs)
        # PEFT hands on its own arguments (input_ids=None, …) beside ours
        return answer(self, **{name: value for name, value in kwargs.items() if name in known})

    model.forward = types.MethodType(forward, model)


def check_logits(model: Any) -> None:
    """Refuse a model whose logits are not its head's output alone. Raises `ConfigError`."""
    present = logit_transforms(model)
    if present:
        raise ConfigError(f"this model sets {', '.join(present)}: set model.shared_prefix to false for it")


def logit_transforms(model: Any) -> list[str]:
    """The settings by which the model changes its logits after its head."""
    config = model.config.get_text_config()
    return [name for name in _LOGIT_TRANSFORMS if getattr(config, name, None) not in (None, 1.0)]


def score_answers(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
    temperature: float = 1.0,
) -> TokenScores:
    """The scores of the answers' tokens under `model`."""
    prompts, rows = distinct(prompt_ids, prompt_mask)
    if fits_forest(model):
        read = _read_forest(model, prompts, rows, answer_ids, answer_mask)
    else:
        read = Read(*read_padded(model, prompts, torch.tensor(rows), answer_ids, answer_mask))
    head = inner_model(model).get_output_embeddings()

    def spread(values: Tensor) -> Tensor:
        blank = torch.cat([values, values.new_zeros(1)])  # the last, where a place is -1
        return blank.index_select(0, read.places.flatten() % len(blank)).view_as(read.places)

    return TokenScores(*map(spread, project_labels(head, read.hidden, read.labels, temperature)))


def _read_forest(
    model: Any, prompts: Sequence[tuple[int, ...]], rows: Sequence[int], answer_ids: Tensor, mask: Tensor
) -> Read:
    answers = token_lists(answer_ids, mask)
    members: list[list[int]] = [[] for _ in prompts]
    for row, prompt in enumerate(rows):
        members[prompt].append(row)
    trees = [Tree.of([answers[row] for row in each]) for each in members]
    hidden, labels, starts = read_trees(model, prompts, trees)
    places = torch.full(answer_ids.shape, -1, dtype=torch.long)
    for each, tree, start in zip(members, trees, starts, strict=True):
        for row, path in zip(each, tree.paths, strict=True):
            places[row, : len(path)] = torch.tensor(path, dtype=torch.long) + start
    return Read(hidden, labels, places.to(hidden.device))


def read_trees(
    model: Any, prompts: Sequence[tuple[int, ...]], trees: Sequence[Tree]
) -> tuple[Tensor, Tensor, list[int]]:
    """(hidden states (E, D) where the E edges of all trees are predicted, their tokens (E,), where each tree's begin).

    The prompts are distinct and sorted, with a tree behind each.
    """
    device = inner_model(model).device
    forest = plant(prompts, trees, device=device)
    hidden = encode_forest(model, forest)
    sources: list[int] = []
    labels: list[int] = []
    starts: list[int] = []
    for tree, end, nodes in zip(trees, forest.ends.tolist(), forest.nodes, strict=True):
        where = nodes.tolist()
        starts.append(len(labels))
        sources += [end if node == END else where[node] for node, _ in tree.edges]
        labels += [token for _, token in tree.edges]
    return (
        hidden.index_select(0, torch.tensor(sources, dtype=torch.long, device=device)),
        torch.tensor(labels, dtype=torch.long, device=device),
        starts,
    )


def project_labels(
    head: Any, hidden: Tensor, labels: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of each label, entropy of its distribution, whether it is the likeliest token.

    `hidden` is (N, D), `labels` (N,); each result is (N,). Goes in chunks that backward recomputes, so that
    memory does not grow with N times the vocabulary.
    """

    def chunk(h: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = head(h).float() / temperature
        normaliser = logits.logsumexp(-1)
        chosen = logits.gather(-1, y.unsqueeze(-1)).squeeze(-1) - normaliser
        with torch.no_grad():
            entropy = normaliser - (torch.softmax(logits, -1) * logits).sum(-1)
            likeliest = logits.argmax(-1) == y
        return chosen, entropy, likeliest

    pieces = list(zip(hidden.split(_TOKENS_PER_CHUNK), labels.split(_TOKENS_PER_CHUNK), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        results = [chunk(h, y) for h, y in pieces]
    else:
        results = [checkpoint(chunk, h, y, use_reentrant=False) for h, y in pieces]
    chosen, entropy, likeliest = (torch.cat(parts) for parts in zip(*results, strict=True))
    return chosen, entropy, likeliest


def verdict_log_probs(model: Any, forest: Forest, tree: Tree, cache: Any = None) -> Tensor:
    """Log-probabilities (P, K) of the tree's texts behind each prompt of the forest, in float64.

    `cache` holds what the forest is rooted in.
    """
    hidden = encode_forest(model, forest, cache)
    places = forest.readings()
    found = hidden.index_select(0, places.flatten()).view(*places.shape, -1)
    edges = project_edges(inner_model(model).get_output_embeddings(), found, tree).double()
    return torch.stack([edges[:, list(path)].sum(1) for path in tree.paths], dim=1)


def project_edges(head: Any, hidden: Tensor, tree: Tree) -> Tensor:
    """Log-probabilities (P, E) of the tree's edges behind each of P prompts, in float32.

    `hidden` is (P, 1 + N, D): at the prompt's end, then at the tree's tokens. The head computes in float32 whatever the
    model does: logits rounded to bfloat16 are a tenth apart, and verdicts would tie.
    """
    sources = torch.tensor([1 + where for where, _ in tree.edges], device=hidden.device)
    labels = torch.tensor([token for _, token in tree.edges], device=hidden.device)
    weight = head.weight.float()
    bias = None if head.bias is None else head.bias.float()

    def chunk(h: Tensor) -> Tensor:
        logits = torch.nn.functional.linear(h, weight, bias)
        found: Tensor = logits[:, sources, labels] - logits.logsumexp(-1)[:, sources]
        return found

    with torch.autocast(hidden.device.type, enabled=False):
        pieces = hidden.float().split(max(1, _TOKENS_PER_CHUNK // hidden.size(1)))
        if len(pieces) == 1 or not torch.is_grad_enabled():
            return torch.cat([chunk(piece) for piece in pieces])
        return torch.cat([checkpoint(chunk, piece, use_reentrant=False) for piece in pieces])
