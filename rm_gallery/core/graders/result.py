"""What a grader gives: a score, a ranking, or the reason why there is neither."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class GraderScore:
    """One response's score.

    Attributes:
        name: the grader's.
        score: a finite number on the grader's own scale.
        reason: what the judge wrote in its favour, or that it gave none.
        metadata: JSON values: what was asked, and what else the answer says.

    Raises:
        ValueError: the score is not a finite number. What could not be scored is a `GraderError`.
    """

    name: str
    score: float
    reason: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"{self.name}: the score is {self.score}, and not a finite number")
        object.__setattr__(self, "score", float(self.score))


@dataclass(frozen=True, slots=True)
class GraderRank:
    """Several responses ranked.

    Attributes:
        name: the grader's.
        rank: of each response, in their given order: 1 and the number of responses that are better. Equal ones share
            a rank: (1, 1, 3).
        reason, metadata: as of `GraderScore`.

    Raises:
        ValueError: the numbers are no such ranks.
    """

    name: str
    rank: tuple[int, ...]
    reason: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", tuple(self.rank))
        if not self.rank or any(r != 1 + sum(other < r for other in self.rank) for r in self.rank):
            raise ValueError(
                f"{self.name}: {self.rank} is no ranking: a rank is 1 and the number of better responses, (1, 1, 3)"
            )

    @classmethod
    def of(cls, name: str, values: Sequence[float], reason: str = "", **metadata: Any) -> GraderRank:
        """The ranking by `values`, the largest first; equal ones share a rank."""
        return cls(
            name, tuple(1 + sum(other > value for other in values) for value in values), reason, metadata
        )


@dataclass(frozen=True, slots=True)
class GraderError:
    """What could not be graded. A result like any other: counted, and never a number.

    Attributes:
        name: the grader's.
        error: one sentence.
        metadata: JSON values. `kind` is the cause: that of the `ChatError` where a request failed, `unparsable` where
            the answer holds no legal verdict, `data` where the item cannot be graded, `function` where one's own
            function raised. `text` is what the model wrote, where it wrote something.
    """

    name: str
    error: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return str(self.metadata.get("kind", ""))


GraderResult = GraderScore | GraderRank | GraderError

_TYPES: dict[str, type[GraderScore | GraderRank | GraderError]] = {
    "score": GraderScore,
    "rank": GraderRank,
    "error": GraderError,
}


def result_to_json(result: GraderResult) -> str:
    """One line for a journal; `result_from_json` gives the same result back.

    Raises:
        TypeError: the metadata holds what is no JSON value.
    """
    fields = {name: getattr(result, name) for name in result.__dataclass_fields__}
    fields["metadata"] = dict(result.metadata)
    return json.dumps({"type": next(key for key, kind in _TYPES.items() if type(result) is kind), **fields})


def result_from_json(line: str | bytes) -> GraderResult:
    """Raises `ValueError`, `TypeError` or `KeyError` where the line is not one of `result_to_json`'s."""
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"{fields!r} is no result of a grader")
    return result_from_fields(fields)


def result_from_fields(fields: dict[str, Any]) -> GraderResult:
    """What a line of `result_to_json` says, read already. Raises as `result_from_json`."""
    given = dict(fields)
    return _TYPES[given.pop("type")](**given)
