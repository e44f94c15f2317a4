"""Samples that depend on the seed and the prompt, and on nothing else that is asked at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList


def draws(
    prompts: Sequence[Sequence[int]], samples: int | None, max_new_tokens: int, seed: int
) -> LogitsProcessorList:
    """What makes greedy decoding of each prompt's `samples` rows, in order, draw at temperature 1; nothing for None."""
    if samples is None:
        return LogitsProcessorList()
    uniforms = np.concatenate([_uniforms(seed, prompt, samples, max_new_tokens) for prompt in prompts])
    return LogitsProcessorList([_Drawn(torch.from_numpy(uniforms))])


def prompt_seed(seed: int, prompt: Sequence[int]) -> int:
    """A seed of 63 bits for one prompt."""
    digest = hashlib.sha256(repr((seed, list(prompt))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _uniforms(seed: int, prompt: Sequence[int], samples: int, tokens: int) -> np.ndarray:
    """(samples, tokens) in [0, 1). Those of a sample do not depend on how many there are."""
    own = prompt_seed(seed, prompt)
    return np.stack([np.random.default_rng((own, number)).random(tokens) for number in range(samples)])


class _Drawn(LogitsProcessor):
    """Leaves each row only the token that its next uniform number falls on."""

    def __init__(self, uniforms: torch.Tensor) -> None:
        self.uniforms = uniforms
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        edges = scores.float().softmax(-1).double().cumsum(-1)
        at = self.uniforms[:, self.step, None].to(scores.device) * edges[:, -1:]
        self.step += 1
        # right: never a token of probability 0
        drawn = torch.searchsorted(edges, at, right=True).clamp(max=scores.size(1) - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
