"""How much memory a training step takes at most, roughly."""

from __future__ import annotations

from dataclasses import dataclass

from rm_gallery.core.estimate.lengths import SCALAR, Lengths
from rm_gallery.core.estimate.machine import Range
from rm_gallery.core.estimate.model import Transformer
from rm_gallery.core.estimate.work import (
    bytes_per_number,
    checkpoints,
    prompts_a_pass,
    samples,
    shares_prompts,
    texts_a_prompt,
    tokens_behind,
    trained_weights,
)
from rm_gallery.core.train.config import TrainConfig

GIB = 2**30
ACTIVATIONS = Range(1.0, 1.7, 3.0)
"""Of what the formula gives: copies, padding and what the allocator keeps come on top. Six of seven runs on a
CPU lay in between, and one of an encoder a little above."""
LIBRARIES = 0.6 * GIB
"""What a process with torch and transformers takes before it holds a model."""
VERL_TOKENS = 16384
"""That engine verl puts into a pass where `train.micro_batch_size` does not say otherwise."""
_LOGITS = 1024
"""Positions whose logits are computed together."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. `parts` are by name; activations and the cache of sampling are not there at once."""

    parts: dict[str, float]
    peak: Range


def memory_of(config: TrainConfig, model: Transformer, lengths: Lengths, gpus: int = 1) -> Memory:
    """Of one of `gpus` processes. Engine verl shards weights, gradients and optimizer; data parallel processes do not."""
    apart = gpus if config.engine == "verl" else 1
    trained = trained_weights(config, model)
    whole = model.parameters + (trained if config.model.lora else 0)
    number = bytes_per_number(config)
    parts = {
        "libraries": LIBRARIES,
        "weights": 4 * whole / apart,
        "gradients": 4 * trained / apart,
        "optimizer": 8 * trained / apart,
    }
    if config.method in ("grpo", "exact") and config.loss.kl_coef and config.model.lora is None:
        # the local engine stores its matrices as autocast rounds them; a head that is not tied is one too
        shape, halved = model.shape, number == 2 and config.engine == "local"
        matrices = shape.layer_weights + (0 if model.tied else shape.head_weights)
        parts["reference"] = (4 * model.parameters - (2 * matrices if halved else 0)) / apart
    if number == 2:
        parts["weights in bfloat16"] = 2 * model.parameters / (1 if config.engine == "local" else apart)
    fixed = sum(parts.values())
    parts["activations"] = activations = _activations(config, model, lengths, gpus)
    cache = 0.0
    if samples(config):
        answers = config.train.batch_size * samples(config) / gpus
        width = 2 * model.kv_width * model.layers * number
        parts["cache of sampling"] = cache = answers * (lengths.longest + lengths.answer) * width
    largest = max(activations, cache)
    return Memory(parts, ACTIVATIONS.times(largest).plus(Range(fixed, fixed, fixed)))


def _activations(config: TrainConfig, model: Transformer, lengths: Lengths, gpus: int) -> float:
    """What a forward pass keeps for the backward one, at the longest texts.

    A token keeps in each layer, in the dtype of the computation, the inputs of the matrices, queries, keys, values and
    the four intermediate results of a gated feed-forward layer, and in float32 those of the norms and residuals.
    """
    number = bytes_per_number(config)
    texts, behind = texts_a_prompt(config), tokens_behind(config, lengths)
    prompts = prompts_a_pass(config, lengths, gpus)
    tokens = prompts * (texts * lengths.longest + behind)
    wide = (4 if model.gated else 2) * model.intermediate
    if config.engine == "verl" and config.train.micro_batch_size is None:
        tokens = max(config.train.micro_batch_tokens or VERL_TOKENS, lengths.longest + lengths.answer)
    a_token = number * (4 * model.hidden + 2 * model.kv_width + wide) + 16 * model.hidden
    kept = float(tokens * model.layers * a_token)
    if checkpoints(config, model):
        kept = tokens * (4 * model.hidden * model.layers + a_token)
    # attention is then our own; an encoder's is not
    shares = shares_prompts(config) and (config.method not in SCALAR or model.causal)
    if config.model.attention == "eager" and not shares:
        kept += prompts * texts * lengths.longest**2 * model.heads * model.layers * (number + 4)
    if config.method not in SCALAR:
        scored = prompts * (1 + behind)
        kept += min(_LOGITS, scored) * model.vocabulary * 4 * 3
    return kept
