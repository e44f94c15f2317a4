"""What a grade depends on, as a key: the grader's configuration and the fields it was given."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, SimpleNamespace
from typing import Any
from uuid import UUID

from rm_gallery.core.errors import DataError


def grader_identity(name: str, grader: Any) -> str:
    """A digest of a grader and its configuration, the same in another process.

    What a grader calls its `fingerprint`, where it has one; else its class and its public attributes, into the objects
    that stand there (a model's own `fingerprint`, a function's source and what it holds).
    """
    return _digest([name, _Description().of(grader)])


def item_key(identity: str, fields: Mapping[str, Any], item_id: Any = None) -> str:
    """The key of one grade: 32 hexadecimal digits.

    Raises:
        DataError: a field is nothing whose content can be told, and there is no `item_id`.
    """
    try:
        return _digest([identity, item_id, dict(fields)], loose=item_id is not None)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"a journal cannot know this item again ({error}): give the runner an item_id, or leave the journal out"
        ) from None


def _digest(content: Any, *, loose: bool = False) -> str:
    def default(value: Any) -> Any:
        plain = _plain(value)
        if plain is not ...:
            return plain
        if loose:  # the id tells the items apart
            return type(value).__qualname__
        raise TypeError(f"it holds a {type(value).__qualname__}")

    text = json.dumps(content, sort_keys=True, default=default)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    """JSON, or nearly, that tells this value from others of its kind; `...` where there is none."""
    if isinstance(value, (bytes, bytearray)):
        return hashlib.blake2b(value, digest_size=16).hexdigest()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, Path, UUID)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, type):
        return ...
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump()
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return value.tolist()
    return ...


class _Description:
    """What an object is made of, as JSON. One that stands there twice is looked into once."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}
        self._within: set[int] = set()

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if id(value) in self._within:
            return "itself"
        self._within.add(id(value))
        try:
            return self._made_of(value)
        finally:
            self._within.discard(id(value))

    def _made_of(self, value: Any) -> Any:
        if isinstance(value, type):
            schema = getattr(value, "model_json_schema", None)  # pydantic: the structure that is asked for
            return [f"{value.__module__}.{value.__qualname__}", schema() if schema else None]
        if isinstance(value, MethodType):
            return [self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, (FunctionType, BuiltinFunctionType)):
            return [f"{value.__module__}.{value.__qualname__}", _source(value), self.of(_bound(value))]
        if isinstance(value, functools.partial):
            return ["partial", self.of([value.func, value.args, value.keywords])]
        if isinstance(value, Mapping):
            return {str(key): self.of(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(inner) for inner in value]
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(own := getattr(value, "fingerprint", None), str):
            return [name, own]
        plain = _plain(value)
        if plain is not ... and not isinstance(plain, dict):
            return [name, self.of(plain)]
        if id(value) in self._seen or (plain is ... and _of_python(kind)):
            return name  # a logger, a lock, a thread: nothing that a grade depends on
        self._seen[id(value)] = value  # held, so that its id stays its own
        state = plain if plain is not ... else {**_class_values(kind), **_state(value)}
        public = {str(key): inner for key, inner in state.items() if not str(key).startswith("_")}
        return [name, {key: self.of(inner) for key, inner in sorted(public.items())}]


def _of_python(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names and kind is not SimpleNamespace


def _class_values(kind: type) -> dict[str, Any]:
    """What a class says for all its objects: `name`, `mode`, a prompt."""
    known = (bool, int, float, str, tuple, list, dict)
    every = (item for base in reversed(kind.__mro__) for item in vars(base).items())
    return {key: value for key, value in every if isinstance(value, known)}


def _state(value: Any) -> dict[str, Any]:
    """An object's attributes, in slots and in its dictionary."""
    slots = [getattr(base, "__slots__", ()) for base in type(value).__mro__]
    names = [name for own in slots for name in ([own] if isinstance(own, str) else own)]
    held = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return {**held, **getattr(value, "__dict__", {})}


def _bound(function: Any) -> list[Any]:
    """What a function holds beside its source: defaults, and the variables of the functions around it."""
    held = []
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # not yet set
            held.append(cell.cell_contents)
    return [getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None), held]


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return "" if code is None else f"{code.co_code.hex()} {code.co_names} {_constants(code)}"


def _constants(code: Any) -> str:
    return repr([const for const in code.co_consts if isinstance(const, (int, float, str, bytes, tuple))])
