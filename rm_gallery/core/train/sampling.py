"""The order of prompts: one sampler for every engine, so that the same seed asks the same questions."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence

from rm_gallery.core.errors import ConfigError


def prompt_order(
    groups: Sequence[Hashable], batch_size: int, *, epochs: float, max_steps: int | None, seed: int
) -> list[int]:
    """Row indices in training order, `batch_size` for each step.

    Each epoch is a fresh permutation; its last incomplete batch is dropped, as both engines do.

    Args:
        groups: one value for each row; rows with the same value stay together.
        epochs: how often to go through the rows; a fraction stops within an epoch. Ignored with `max_steps`.
        max_steps: stop after so many steps, going through the rows as often as that takes.

    Raises:
        ConfigError: there are fewer rows than a batch.
    """
    rows = len(groups)
    per_epoch = rows // batch_size
    if per_epoch == 0:
        raise ConfigError(
            f"{rows} training rows do not fill one batch: set train.batch_size to {rows} or less"
        )
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    steps = max_steps if max_steps is not None else max(1, round(epochs * per_epoch))
    order: list[int] = []
    for epoch in range(math.ceil(steps / per_epoch)):
        drawn = list(members.values())
        random.Random(f"{seed}/{epoch}").shuffle(drawn)
        order += [row for group in drawn for row in group][: per_epoch * batch_size]
    return order[: steps * batch_size]
