"""A few texts as a tree of tokens: what they begin with alike is in it once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

END = -1
"""The parent of a tree's first tokens: the end of the prompt that stands before it."""


class Tree(NamedTuple):
    """N tokens that a model reads, and E that it may go on with there.

    The last token of a text is predicted and never read, so the tree holds the texts without it.

    Attributes:
        tokens: (N,), each behind its parent.
        parents: (N,), `END` or the place of an earlier token. A node's descendants lie directly behind it (depth first).
        edges: (E,), (where, token): the token may follow what stands there.
        paths: for each text, the edges it is made of; its log-probability is the sum of theirs.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    paths: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> Tree:
        """The tree of texts; equal ones are one path."""
        tokens: list[int] = []
        parents: list[int] = []
        places: dict[tuple[int, int], int] = {}
        edges: dict[tuple[int, int], int] = {}
        paths: list[tuple[int, ...]] = [()] * len(texts)
        # what begins alike one after another, so that the nodes lie depth first
        for row in sorted(range(len(texts)), key=lambda row: tuple(texts[row])):
            here, path = END, []
            for i, token in enumerate(texts[row]):
                path.append(edges.setdefault((here, token), len(edges)))
                if i == len(texts[row]) - 1:
                    break
                if (here, token) not in places:
                    places[here, token] = len(tokens)
                    tokens.append(token)
                    parents.append(here)
                here = places[here, token]
            paths[row] = tuple(path)
        return cls(tuple(tokens), tuple(parents), tuple(edges), tuple(paths))

    def depths(self) -> list[int]:
        """How many tokens behind the prompt's end each stands, from 1."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent == END else depths[parent] + 1)
        return depths

    def before(self, node: int) -> list[int]:
        """The tokens from the tree's beginning up to that of `node`; none of `END`."""
        found = []
        while node != END:
            found.append(self.tokens[node])
            node = self.parents[node]
        return found[::-1]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    most = min(len(a), len(b))
    return next((i for i in range(most) if a[i] != b[i]), most)
