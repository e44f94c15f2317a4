"""Reading a YAML, applying `key=value` to it, and turning what pydantic refuses into sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rm_gallery.core.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: str | Path, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file; `expected` says, for the message, what it should hold.

    Raises:
        ConfigError: the file is missing, cannot be read, is not YAML, or holds no mapping.
    """
    path = Path(path).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date that no calendar has
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected {expected}, found {type(content).__name__}")
    return content


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted keys.

    >>> flat({"a": {"b": 1}, "c.d": 2})
    {'a.b': 1, 'c.d': 2}
    """
    level: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            level |= flat(value, f"{prefix}{key}.")
        else:
            level[prefix + key] = value
    return level


def apply_override(
    content: dict[str, Any],
    override: str,
    *,
    example: str,
    root: str | None = None,
    dotted: str | None = None,
) -> None:
    """Set `a.b=value` in `content`, in place; the value is YAML.

    Args:
        example: a right one, for the message.
        root: a section that may be left out of the key.
        dotted: a section whose keys keep their dots, on one level.

    Raises:
        ConfigError: it is not of that form, or leads through a single value.
    """
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}: expected key=value, for example {example}")
    if root is not None and parts[0] != root:
        parts.insert(0, root)
    if parts[0] == dotted:
        content[dotted] = flat(content.get(dotted) or {})
        parts[1:] = [".".join(parts[1:])]
    place = content
    for part in parts[:-1]:
        if place.get(part) is None:  # a section that is absent, or empty as `lora: null`
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override!r}: {part} is a single value, nothing can be set in it")
    try:
        place[parts[-1]] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date that no calendar has
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from error


def validate(model: type[Model], content: Any, where: str) -> Model:
    """`content` as a `model`.

    Raises:
        ConfigError: a key or a value is refused; one sentence for each, with the nearest known key.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        sentences = (_sentence(model, dict(problem)) for problem in error.errors())
        raise ConfigError(f"{where}: " + "; ".join(sentences)) from None


def _sentence(model: type[BaseModel], problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = list(_section(model, location[:-1]))
        return f"{key} is not a known key.{nearest(location[-1], known)} Known are {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "literal_error":
        given = str(problem["input"])
        legal = _literals(_section(model, location[:-1]), location)
        return f"{key} is {given!r}, expected {problem['ctx']['expected']}.{nearest(given, legal)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key} is {problem['input']!r}: {message[:1].lower()}{message[1:]}" if key else message


def _section(model: type[BaseModel], location: Sequence[str]) -> dict[str, Any]:
    """The fields, by name, of the section at `location`."""
    section: Any = model
    for part in location:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        kinds = (annotation, *get_args(annotation))  # a section, or one that may be null
        section = next((kind for kind in kinds if hasattr(kind, "model_fields")), section)
    return dict(section.model_fields)


def _literals(fields: dict[str, Any], location: Sequence[str]) -> list[str]:
    """The legal values of a field that takes one of several words, or a list of them."""
    name = next((part for part in reversed(location) if part in fields), None)
    pending, words = [fields[name].annotation] if name else [], list[str]()
    while pending:
        for part in get_args(pending.pop()):
            words.append(part) if isinstance(part, str) else pending.append(part)
    return words
