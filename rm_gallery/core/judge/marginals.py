"""From a distribution over combinations of scores to that of each score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Marginals:
    """Of distributions over all combinations of scores, in the order of `itertools.product`.

    Args:
        sizes: of the scales.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self._last: tuple[Sequence[float], list[tuple[float, ...]]] | None = None

    def __call__(self, joint: Sequence[float]) -> list[tuple[float, ...]]:
        """The distribution over each scale; the same object twice in a row is summed up once."""
        if self._last is None or self._last[0] is not joint:
            cube = np.asarray(joint, dtype=np.float64).reshape(self.sizes)
            axes = range(len(self.sizes))
            sums = [cube.sum(axis=tuple(j for j in axes if j != i)) for i in axes]
            self._last = joint, [tuple((one / one.sum()).tolist()) for one in sums]
        return self._last[1]
