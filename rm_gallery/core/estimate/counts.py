"""What judging, and a GRPO step on it, has to compute, and what sharing the prompt can gain at most. No torch, no files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Of a transformer, what its operations depend on.

    Attributes:
        layer_weights: entries of all matrices in the layers.
        head_weights: vocabulary x hidden size.
        attention_width: heads x their size.
        layers: how many.
        causal: a token sees those before it; in an encoder it sees all.
    """

    layer_weights: int
    head_weights: int
    attention_width: int
    layers: int
    causal: bool = True


def encoded(prompt: int, group: int, verdict: int) -> int:
    """Tokens to encode for one prompt and its samples; nothing comes after a sample's last token."""
    return prompt + group * (verdict - 1)


def seen(prompt: int, group: int, verdict: int) -> int:
    """Pairs of a token and one that it sees, itself included: causal attention, the prompt's keys shared."""
    later = verdict - 1
    return prompt * (prompt + 1) // 2 + group * (later * prompt + later * (later + 1) // 2)


def scored(group: int, verdict: int) -> int:
    """Positions whose next token is scored: the prompt's last one stands for all samples of the group."""
    return 1 + group * (verdict - 1)


def forward_operations(shape: Shape, prompt: int, group: int, verdict: int) -> int:
    """Multiplications and additions of one forward pass over a prompt and its samples.

    2 x layer weights x tokens + 2 x head weights x scored positions + 4 x attention width x layers x pairs seen
    (2 for the scores, 2 for the weighted sum of the values).
    """
    pairs = seen(prompt, group, verdict) if shape.causal else encoded(prompt, group, verdict) ** 2
    return (
        2 * shape.layer_weights * encoded(prompt, group, verdict)
        + 2 * shape.head_weights * scored(group, verdict)
        + 4 * shape.attention_width * shape.layers * pairs
    )


def step_operations(
    shape: Shape, prompts: int, prompt: int, group: int, verdict: int, *, reference: bool
) -> int:
    """Of the unavoidable work of a step: each distinct prompt and each sample once forward and backward.

    A backward pass costs two forward ones. With a KL term the starting model goes forward over the same tokens. The
    samples are drawn from the weights that are then updated, so the forward pass of sampling is not counted again.
    """
    return prompts * (3 + reference) * forward_operations(shape, prompt, group, verdict)


def ideal_speed_up(prompt: int, group: int, verdict: int) -> float:
    """Tokens without sharing over tokens with it: (P + V) G / (P + V G)."""
    return (prompt + verdict) * group / (prompt + verdict * group)
