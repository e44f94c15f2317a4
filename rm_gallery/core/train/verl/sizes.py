"""Numbers of a verl run that must fit each other: batches, micro-batches, GPUs and lengths.

verl cuts a mini-batch of `ppo_mini_batch_size` prompts, with `rollout.n` answers each, into equal parts for its GPUs,
and each part into micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rm_gallery.core.train.verl.settings import ACTOR, REF, ROLLOUT, Settings


def batches(s: Settings) -> Iterator[str]:
    """How many prompts and answers make a batch and a mini-batch."""
    batch, mini, n = (
        s.number(key) for key in ("data.train_batch_size", f"{ACTOR}.ppo_mini_batch_size", f"{ROLLOUT}.n")
    )
    if batch is None or mini is None or n is None:
        return
    if mini > batch:
        yield (
            f"{ACTOR}.ppo_mini_batch_size ({mini}) is over data.train_batch_size ({batch}), of which it is a part: "
            f"set it to {batch} or a divisor of it"
        )
    elif batch % mini:
        yield (
            f"data.train_batch_size ({batch}) is not a multiple of {ACTOR}.ppo_mini_batch_size ({mini}), and verl "
            f"fills each step up with empty rows: set it to {batch // mini * mini} or {(batch // mini + 1) * mini}"
        )
    if not s.dynamic and batch * n % s.gpus:
        yield (
            f"data.train_batch_size ({batch}) x {ROLLOUT}.n ({n}) = {batch * n} answers cannot be shared evenly by "
            f"{s.gpus} GPUs: set data.train_batch_size to a multiple of {s.gpus // math.gcd(n, s.gpus)}"
        )
    if mini * n % s.ranks:
        yield (
            f"{ACTOR}.ppo_mini_batch_size ({mini}) x {ROLLOUT}.n ({n}) = {mini * n} answers cannot be shared evenly "
            f"by {s.ranks} data-parallel GPUs: set the mini-batch to a multiple of "
            f"{s.ranks // math.gcd(n, s.ranks)}"
        )


def micro_batches(s: Settings) -> Iterator[str]:
    """How many answers go through the model at once; the numbers of `batches` are right or reported there."""
    if bool(s.get(f"{ROLLOUT}.log_prob_use_dynamic_bsz")) != s.dynamic:
        yield (
            f"{ROLLOUT}.log_prob_use_dynamic_bsz and {ACTOR}.use_dynamic_bsz differ: give the second alone, which "
            "the first follows"
        )
    batch, mini, n = (
        s.number(key) for key in ("data.train_batch_size", f"{ACTOR}.ppo_mini_batch_size", f"{ROLLOUT}.n")
    )
    step = (mini or 1) * (n or 1)
    update = step // s.ranks if step % s.ranks == 0 else 0
    scored = math.ceil((batch or 1) * (n or 1) / step) * step // s.ranks if update else 0
    places = [(ACTOR, "ppo", s.dynamic, update), (ROLLOUT, "log_prob", s.dynamic, scored)]
    if s.reference:
        places.append((REF, "log_prob", bool(s.get(f"{REF}.log_prob_use_dynamic_bsz")), scored))
    if s.critic:
        places.append(("critic", "ppo", bool(s.get("critic.use_dynamic_bsz")), 0))
    for section, prefix, dynamic, rows in places:
        if dynamic:
            yield from _token_budget(s, f"{section}.{prefix}_max_token_len_per_gpu")
            continue
        key = f"{section}.{prefix}_micro_batch_size_per_gpu"
        size = s.number(key)
        if s.get(key) is None:
            fitting = next((size for size in (4, 2) if rows % size == 0), 1)
            yield f"{key} is not set: set it, for example to {fitting}, or {ACTOR}.use_dynamic_bsz=true"
        elif size and rows and rows % size:
            yield (
                f"{key} ({size}) does not divide the {rows} answers that each GPU works on: set it to a divisor, "
                f"for example {math.gcd(size, rows)}"
            )


def _token_budget(s: Settings, key: str) -> Iterator[str]:
    budget = s.number(key)
    if key.startswith("critic") or budget is None or s.sequence is None or budget * s.ulysses >= s.sequence:
        return
    yield (
        f"{key} ({budget}) is below a sequence of {s.sequence} tokens (prompt and response): set it to "
        f"{math.ceil(s.sequence / s.ulysses)} or more"
    )


def parallel(s: Settings) -> Iterator[str]:
    """How many GPUs one model and one sequence take."""
    per_node = s.number("trainer.n_gpus_per_node")
    sizes = [
        s.number(f"{ROLLOUT}.{name}_parallel_size") for name in ("tensor_model", "data", "pipeline_model")
    ]
    if sizes[2] and sizes[2] > 1:
        yield f"{ROLLOUT}.pipeline_model_parallel_size is {sizes[2]}, which verl does not do: leave it out"
    replica = math.prod(size or 1 for size in sizes[:2])
    name = f"{ROLLOUT}.tensor_model_parallel_size ({sizes[0]})"
    if replica != sizes[0]:
        name += f" x data_parallel_size ({sizes[1]})"
    if replica > s.gpus or s.gpus % replica:
        yield f"{name} does not divide the {s.gpus} GPUs (trainer.n_gpus_per_node x trainer.nnodes): set a divisor"
    elif per_node and (per_node % replica if replica < per_node else replica % per_node):
        yield f"{name} does not fit on nodes of {per_node} GPUs: set a divisor or a multiple of {per_node}"
    if s.ulysses > 1 and s.gpus % s.ulysses:
        yield f"{ACTOR}.ulysses_sequence_parallel_size ({s.ulysses}) does not divide the {s.gpus} GPUs: set a divisor"
    if s.ulysses > 1 and not s.get("actor_rollout_ref.model.use_remove_padding"):
        yield (
            f"{ACTOR}.ulysses_sequence_parallel_size ({s.ulysses}) takes sequences without padding: set "
            "actor_rollout_ref.model.use_remove_padding=true"
        )


def lengths(s: Settings) -> Iterator[str]:
    """How long prompts and answers may be."""
    limit, key = s.number(f"{ROLLOUT}.max_model_len"), f"{ROLLOUT}.max_model_len"
    if limit and s.context and limit > s.context:
        yield f"{key} ({limit}) is over the model's context of {s.context} tokens: set it to {s.context} or less"
    room = min(limit or math.inf, s.context or math.inf)
    if s.sequence is None or s.sequence <= room:
        return
    what = f"{key} ({limit})" if room == limit else f"the model's context of {s.context} tokens"
    yield (
        f"data.max_prompt_length ({s.get(f'{ROLLOUT}.prompt_length')}) + data.max_response_length "
        f"({s.get(f'{ROLLOUT}.response_length')}) = {s.sequence} tokens is over {what}, and answers would be cut "
        "short: lower one of them"
    )
