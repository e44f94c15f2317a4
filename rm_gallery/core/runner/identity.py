"""What a grade depends on, as a key: the grader's configuration and the fields it was given."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any
from uuid import UUID

from rm_gallery.core.errors import DataError

_DEPTH = 6


def grader_identity(name: str, grader: Any) -> str:
    """A digest of a grader and its configuration, the same in another process.

    What a grader calls its `fingerprint`, where it has one; else its class and its public attributes, into the objects
    that stand there (a model's own `fingerprint`, a function's source).
    """
    return _digest([name, _described(grader, _DEPTH)])


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
    """A JSON value that tells this one from others of its kind; `...` where there is none."""
    if isinstance(value, (bytes, bytearray)):
        return hashlib.blake2b(value, digest_size=16).hexdigest()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, Path, UUID)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return value.tolist()
    return ...


def _described(value: Any, depth: int) -> Any:
    """What an object is made of, as JSON; of what cannot be told, its class."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if depth == 0:
        return name
    if isinstance(value, type):
        schema = getattr(value, "model_json_schema", None)  # pydantic: the structure that is asked for
        return [f"{value.__module__}.{value.__qualname__}", schema() if schema else None]
    if isinstance(value, MethodType):
        return [_described(value.__func__, depth - 1), _described(value.__self__, depth - 1)]
    if isinstance(value, (FunctionType, BuiltinFunctionType)):
        return [f"{value.__module__}.{value.__qualname__}", _source(value)]
    if isinstance(value, Mapping):
        return {str(key): _described(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(inner, depth - 1) for inner in value]
    own = getattr(value, "fingerprint", None)
    if isinstance(own, str):
        return [name, own]
    plain = _plain(value)
    if plain is not ... and not isinstance(plain, dict):
        return [name, plain if isinstance(plain, str) else _described(plain, depth - 1)]
    state = plain if plain is not ... else {**_class_values(type(value)), **getattr(value, "__dict__", {})}
    public = {str(key): inner for key, inner in state.items() if not str(key).startswith("_")}
    return [name, {key: _described(inner, depth - 1) for key, inner in sorted(public.items())}]


def _class_values(kind: type) -> dict[str, Any]:
    """What a class says for all its objects: `name`, `mode`, a prompt."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        for key, value in vars(base).items():
            if isinstance(value, (bool, int, float, str, tuple, list, dict)):
                found[key] = value
    return found


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return "" if code is None else code.co_code.hex()
