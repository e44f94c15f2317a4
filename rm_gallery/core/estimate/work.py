"""What a configuration has to compute: operations and bytes, phase by phase. No torch.

Counted is the unavoidable work (`counts.py`). Padding, what different prompts begin with alike, copies and communication
are not: they are in the share of the peak that is reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rm_gallery.core.estimate.counts import Shape, forward_operations
from rm_gallery.core.estimate.lengths import SCALAR, Lengths
from rm_gallery.core.estimate.model import Transformer
from rm_gallery.core.train.config import TrainConfig

Kind = Literal["forward", "update", "decode", "optimizer"]
OPTIMIZER_BYTES = 40
"""A trained weight: AdamW reads weight, gradient and both moments and writes three of them; clipping reads and writes the
gradient once more; clearing writes it. Four bytes each."""


@dataclass(frozen=True)
class Work:
    """A part of a step.

    Attributes:
        phase: its name in `metrics.jsonl` where that times it.
        kind: at which rate it goes. `decode` and `optimizer` are bound by what they read.
        operations: multiplications and additions.
        read: bytes to and from memory, of `decode` and `optimizer`.
        passes: passes through the model, one after the other, a backward one counting as two.
    """

    phase: str
    kind: Kind
    operations: float = 0.0
    read: float = 0.0
    passes: float = 0.0


def bytes_per_number(config: TrainConfig) -> int:
    """Of what is computed. `auto` counts as bfloat16."""
    return 4 if config.model.dtype == "float32" else 2


def steps_of(config: TrainConfig, rows: int) -> int:
    """Steps of the whole run, as the sampler lays them out."""
    per_epoch = rows // config.train.batch_size
    if config.train.max_steps is not None:
        return config.train.max_steps
    return max(1, round(config.train.epochs * per_epoch))


def evaluations(config: TrainConfig, steps: int) -> int:
    """Held-out evaluations of a run: at the start, every `eval_every` steps, and at the end."""
    every = config.train.eval_every or steps
    return 1 + math.ceil(steps / every)


def step_work(config: TrainConfig, model: Transformer, lengths: Lengths, gpus: int = 1) -> list[Work]:
    """One training step, of one of `gpus` processes that share its prompts evenly."""
    batch = config.train.batch_size / gpus
    micro = max(1.0, batch / prompts_a_pass(config, lengths, gpus))
    if config.method in SCALAR:
        texts = batch * (2 if config.method == "bradley_terry" else 1)
        forward = texts * _mean(model.without_head, lengths.texts, 1, 1)
        passes: list[Work] = []
    elif config.method == "exact" and not samples(config):
        forward = batch * expected_operations(model.shape, lengths)
        passes = [Work("log_probs", "forward", forward, passes=micro)] if config.loss.kl_coef else []
    elif config.method == "sft":
        every = not config.model.shared_prefix
        forward = batch * _mean(model.shape, lengths.texts, 1, lengths.answer, every_token=every)
        passes = []
    else:
        forward = batch * group_operations(config, model.shape, lengths)
        passes = [*_generate(config, model, lengths, batch)]
        if count := _passes_without_gradient(config):
            passes.append(Work("log_probs", "forward", count * forward, passes=count * micro))
    updates = config.train.batch_size // config.mini_batch_size
    # verl shards the optimizer; data parallel processes each update all weights
    trained = trained_weights(config, model) / (gpus if config.engine == "verl" else 1)
    return [
        *passes,
        Work(
            "update",
            "update",
            _update_factor(config, model) * forward,
            passes=_update_factor(config, model) * micro,
        ),
        Work("optimizer", "optimizer", read=updates * OPTIMIZER_BYTES * trained),
    ]


def prompts_a_pass(config: TrainConfig, lengths: Lengths, gpus: int) -> int:
    """Prompts (texts, pairs) of a forward and backward pass of one of the processes."""
    if config.train.micro_batch_size is not None:
        return config.micro_batch_size
    share = max(1, config.mini_batch_size // gpus)
    if config.train.micro_batch_tokens is None:
        return share
    one = texts_a_prompt(config) * lengths.longest + tokens_behind(config, lengths)
    return min(share, max(1, config.train.micro_batch_tokens // one))


def texts_a_prompt(config: TrainConfig) -> int:
    """How often a pass encodes a prompt."""
    if config.method == "bradley_terry":
        return 2
    return config.rollout.n if config.method == "grpo" and not shares_prompts(config) else 1


def tokens_behind(config: TrainConfig, lengths: Lengths) -> int:
    """Tokens that a pass encodes behind a prompt: of its answers, or of the tree of verdicts."""
    n = samples(config)
    if config.method == "exact" and not n:
        return lengths.tree or 0
    return (n or 1) * (max(0, lengths.answer - 1) + lengths.behind)


def samples(config: TrainConfig) -> int:
    """What is written to each prompt: answers, or of `exact` the reasonings of a judge that reasons; else nothing."""
    reasons = config.think or config.model.reasoning_model
    return config.rollout.n if config.method == "grpo" or (config.method == "exact" and reasons) else 0


def shares_prompts(config: TrainConfig) -> bool:
    """Whether the samples of a prompt encode it once, scored and trained. verl does not share there."""
    return config.engine == "local" and config.model.shared_prefix


def group_operations(config: TrainConfig, shape: Shape, lengths: Lengths) -> float:
    """Forward, over one prompt and its samples."""
    n = config.rollout.n
    # of `exact`: all verdicts behind each reasoning
    more = 2.0 * (shape.layer_weights + shape.head_weights)
    more += 4 * shape.attention_width * shape.layers * (lengths.mean + lengths.answer)
    if shares_prompts(config):
        return _mean(shape, lengths.texts, n, lengths.answer) + n * lengths.behind * more
    return n * _mean(shape, lengths.texts, 1, lengths.answer)


def expected_operations(shape: Shape, lengths: Lengths) -> float:
    """Forward over a prompt with all legal verdicts behind it: each token of their tree as a sample of one."""
    if lengths.tree is None:
        raise ValueError("the verdicts cannot all be weighed")
    return _mean(shape, lengths.texts, lengths.tree, 2)


def decode_work(
    model: Transformer,
    lengths: Lengths,
    *,
    prompts: float,
    samples: int,
    together: float,
    weight: int,
    number: int,
) -> Work:
    """Writing `samples` answers to each of `prompts`, `together` answers at a time.

    Each new token reads the weights once for all answers, and each answer's keys and values.

    Args:
        weight, number: bytes of a weight, and of a key's or value's number.
    """
    shape, answers = model.shape, prompts * samples
    later = lengths.answer * (lengths.mean + (lengths.answer + 1) / 2)  # tokens seen by those of an answer
    operations = answers * (
        lengths.answer * 2 * (shape.layer_weights + shape.head_weights)
        + 4 * shape.attention_width * shape.layers * later
    )
    rounds = lengths.answer * math.ceil(answers / together)
    cached = 2 * model.kv_width * model.layers * number
    weights = shape.layer_weights + shape.head_weights
    return Work("decode", "decode", operations, rounds * weight * weights + answers * later * cached, rounds)


def trained_weights(config: TrainConfig, model: Transformer) -> int:
    """All of them, or those of the adapters on all linear layers."""
    lora = config.model.lora
    if lora is None:
        return model.parameters
    width = model.heads * model.head_size
    ends = [
        (model.hidden, width),
        (model.hidden, model.kv_width),
        (model.hidden, model.kv_width),
        (width, model.hidden),
    ]
    ends += [(model.hidden, model.intermediate)] * (3 if model.gated else 2)
    return model.layers * lora.rank * sum(a + b for a, b in ends)


def _generate(config: TrainConfig, model: Transformer, lengths: Lengths, batch: float) -> Iterable[Work]:
    """vLLM keeps the beginnings of prompts too: there, as here, each prompt is read once."""
    n = config.rollout.n
    once = 1 if config.engine == "verl" or config.model.shared_prefix else n
    body = Shape(model.shape.layer_weights, 0, model.shape.attention_width, model.layers)
    yield Work("prefill", "forward", once * batch * _mean(body, lengths.texts, 1, 1), passes=1)
    yield decode_work(
        model,
        lengths,
        prompts=batch,
        samples=n,
        together=batch * n,
        weight=2
        if config.engine == "verl"
        else 4,  # the local engine samples from the trained weights themselves
        number=bytes_per_number(config),
    )


def _passes_without_gradient(config: TrainConfig) -> int:
    """The reference's, and the old policy's where a step has several updates; verl always computes the latter."""
    old = config.engine == "verl" or config.mini_batch_size < config.train.batch_size
    return (1 if config.loss.kl_coef else 0) + (1 if old else 0)


def checkpoints(config: TrainConfig, model: Transformer) -> bool:
    """Whether activations are computed twice; engine verl does so from a billion weights on."""
    return config.model.gradient_checkpointing or (config.engine == "verl" and model.parameters >= 1e9)


def _update_factor(config: TrainConfig, model: Transformer) -> int:
    """Forward passes that an update is worth: a backward pass costs two, one where only adapters learn, and
    checkpointing a second forward pass."""
    backward = 1 if config.model.lora is not None else 2
    return 1 + backward + (1 if checkpoints(config, model) else 0)


def _mean(
    shape: Shape, texts: tuple[int, ...], group: int, answer: int, *, every_token: bool = False
) -> float:
    """Mean of the forward operations over prompts of these lengths; `every_token`: the head sees the prompt too."""
    total = sum(forward_operations(shape, text, group, answer) for text in texts)
    if every_token:
        total += sum(2 * shape.head_weights * group * (text - 1) for text in texts)
    return total / len(texts)
