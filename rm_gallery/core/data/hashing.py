"""Hashes of what a row says: its identity, its side of a split, and a compact set of those seen.

64 bits of BLAKE2b throughout: among 10 million rows two different ones collide with probability 3e-6.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from rm_gallery.core.data.samples import _OTHER, Message, Pair, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BYTES = 8


class Fingerprint(NamedTuple):
    """`prompt` and `row` are 8-byte digests, `size` the bytes of the texts; `unique_id` is `row` in hexadecimal."""

    prompt: bytes
    row: bytes
    size: int

    @property
    def unique_id(self) -> str:
        return self.row.hex()


def fingerprint(judgment: Sample | Pair) -> Fingerprint:
    """Hash a judgment's conversation, and with it the responses and labels.

    A pair and its swap have the same fingerprint: they are the same judgment.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair, which no UTF-8 file can store.
    """
    conversation = _conversation_bytes(judgment.input)
    state = blake2b(conversation, digest_size=_BYTES)
    prompt = state.digest()
    if isinstance(judgment, Sample):
        # what follows the last "[" is the labels, so no response can imitate them
        body = f"{judgment.response}{sorted(judgment.labels.items())}".encode()
    else:
        first, second, strength = judgment.response_a, judgment.response_b, judgment.strength
        preferred = judgment.preferred
        if (first, strength) > (second, -strength):
            first, second, strength, preferred = second, first, -strength, _OTHER[preferred]
        body = f"{len(first)} {first}{second}[{preferred}{strength}]".encode()
    state.update(body)
    return Fingerprint(prompt, state.digest(), len(conversation) + len(body))


def prompt_hash(messages: Sequence[Message]) -> bytes:
    """The 8-byte digest of a conversation."""
    return blake2b(_conversation_bytes(messages), digest_size=_BYTES).digest()


def _conversation_bytes(messages: Sequence[Message]) -> bytes:
    """The messages with their lengths before them, so that no two conversations read alike."""
    turns = [f" {len(m.role)} {len(m.content)} {m.role}{m.content}" for m in messages]
    return f"{len(turns)}{''.join(turns)}".encode()


class RatioSplit:
    """Draws a split for a prompt: its hash with the seed is a point in [0, 1), cut by the cumulative ratios.

    The draw depends on nothing but seed, ratios and the prompt's messages, so all responses to a prompt are
    on one side, and no prompt changes sides when rows are added.
    """

    def __init__(self, ratio: dict[str, float], seed: int) -> None:
        self.names = list(ratio)
        self._cuts = list(accumulate(ratio.values()))[:-1]  # the last one is 1, whatever rounding says
        self._key = str(seed).encode()

    def __call__(self, prompt: bytes) -> str:
        """The split of the prompt with this digest."""
        draw = blake2b(prompt, digest_size=_BYTES, key=self._key).digest()
        return self.names[bisect_right(self._cuts, int.from_bytes(draw, "big") / 2**64)]


class HashSet:
    """A set of 8-byte digests in sorted arrays, merged geometrically: 8 bytes each, 24 while two merge."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def add(self, digests: Sequence[bytes]) -> list[bool]:
        """Add the digests; for each, whether it was new (also within this call)."""
        import numpy as np

        values: NDArray[np.uint64] = np.frombuffer(b"".join(digests), dtype=np.uint64)
        unique, first = np.unique(values, return_index=True)
        fresh = np.ones(len(unique), dtype=bool)
        for run in self._runs:
            places = np.searchsorted(run, unique)
            places[places == len(run)] = 0  # beyond the end: compare with any element, it differs
            fresh &= run[places] != unique
        new = np.zeros(len(values), dtype=bool)
        new[first[fresh]] = True
        if fresh.any():
            self._insert(unique[fresh])
        answer: list[bool] = new.tolist()
        return answer

    def shared(self, other: HashSet) -> int:
        """How many digests are in both."""
        import numpy as np

        return sum(
            len(np.intersect1d(mine, theirs, assume_unique=True))
            for mine in self._runs
            for theirs in other._runs
        )

    def _insert(self, run: NDArray[np.uint64]) -> None:
        import numpy as np

        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            last = self._runs.pop()
            merged = np.concatenate([last, run])
            del last
            merged.sort(kind="stable")  # radix or timsort: linear on two sorted halves
            run = merged
        self._runs.append(run)
