"""`GraderConfig`: a grader, where in an item its fields stand, and its weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders import BaseGrader

Mapper = Mapping[str, str] | Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class GraderConfig:
    """A grader as a runner uses it.

    Attributes:
        grader: anything with `BaseGrader`'s `name` and `aevaluate`.
        mapper: where the grader's fields come from: field → dotted path into the item (`{"query": "input.0.content"}`),
            or a function item → fields. None: the item's own fields that the grader takes.
        weight: in a weighted sum of several graders.

    Raises:
        ConfigError: something else stands there.
    """

    grader: BaseGrader
    mapper: Mapper | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not callable(getattr(self.grader, "aevaluate", None)):
            raise ConfigError(f"{self.grader!r} is no grader: it has no aevaluate")
        if not math.isfinite(self.weight):
            raise ConfigError(f"the weight of grader {self.grader.name} is {self.weight}; expected a number")
        if isinstance(self.mapper, Mapping):
            for field, path in self.mapper.items():
                if not isinstance(path, str) or not path:
                    raise ConfigError(
                        f"the mapper's {field!r} is {path!r}; expected a dotted path, as in "
                        '{"query": "input.0.content"}, or a function in place of the mapper'
                    )
        elif self.mapper is not None and not callable(self.mapper):
            raise ConfigError(f"the mapper is {self.mapper!r}; expected field → dotted path, or a function")

    def fields(self, item: Any) -> dict[str, Any]:
        """What the grader is given for an item.

        Raises:
            DataError: a path leads nowhere, or the item is no mapping and there is no mapper. What a mapper function
                raises passes through.
        """
        if isinstance(self.mapper, Mapping):
            return {field: at_path(item, path) for field, path in self.mapper.items()}
        if self.mapper is not None:
            fields = self.mapper(item)
            if not isinstance(fields, Mapping):
                raise DataError(f"the mapper gave a {type(fields).__name__}, expected the grader's fields")
            return dict(fields)
        if not isinstance(item, Mapping):
            raise DataError(f"the item is a {type(item).__name__}; expected fields by name, or give a mapper")
        select = getattr(self.grader, "select", dict)
        return dict(select(item))


def at_path(item: Any, path: str) -> Any:
    """The value at a dotted path: keys of mappings, positions in sequences (-1 is the last), attributes of the rest.

    A key that holds dots itself is found by its whole name first.

    Raises:
        DataError: the path leads nowhere; says how far it went.
    """
    if isinstance(item, Mapping) and path in item:
        return item[path]
    found, steps = item, path.split(".")
    for taken, step in enumerate(steps):
        try:
            if isinstance(found, Mapping):
                found = found[step]
            elif isinstance(found, Sequence) and not isinstance(found, (str, bytes)):
                found = found[int(step)]
            elif step.startswith("_"):  # no path of a configuration leads into an object's inside
                raise AttributeError(step)
            else:
                found = getattr(found, step)
        except (KeyError, IndexError, ValueError, AttributeError):
            where = ".".join(steps[:taken]) or "the item"
            raise DataError(f"there is no {step!r} in {where} (of {path}), {_shown(found)}") from None
    return found


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"which has {', '.join(map(str, list(value)[:12])) or 'nothing'}"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"
