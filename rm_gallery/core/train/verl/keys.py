"""verl's own keys: which there are, which are like another, and which its configuration classes take."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rm_gallery.core.errors import nearest
from rm_gallery.core.train.verl.installed import config_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

# verl makes objects of these sections, which take no name that their class does not know
_TYPED = (
    *(f"actor_rollout_ref.{section}." for section in ("actor", "ref", "rollout", "model")),
    "critic.",
)

# where classes that stand under actor_rollout_ref and critic, and their bases, are defined
_SOURCES = (
    "base_config.py",
    "workers/config",
    "trainer/config",
    "utils/profiler/config.py",
    "utils/qat/core.py",
)


@dataclass(frozen=True)
class Place:
    """Where a key leads: the first name of it that is not there, or None; and the class of the section it is not in."""

    missing: str | None
    target: str | None = None


def place_of(base: DictConfig, key: str) -> Place:
    """Follow a key from the top."""
    section, parts = base, key.split(".")
    for place, part in enumerate(parts):
        if part not in list(section):  # `in` the section itself does not count what is ???
            typed = key.startswith(_TYPED)
            return Place(part, section.get("_target_") if typed else None)
        if place == len(parts) - 1:
            return Place(None)
        below = _below(section, part)
        if below is None:
            return Place(parts[place + 1])
        section = below
    return Place(None)


def did_you_mean(key: str, base: DictConfig) -> str:
    """ " Did you mean 'x'?" for a misspelt name in the same section, the same name in another, or else the nearest."""
    from difflib import get_close_matches

    known = list(_keys(base))
    section, _, last = key.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == section]
    if close := get_close_matches(last, siblings, n=1, cutoff=0.75):
        return f" Did you mean {f'{section}.{close[0]}'!r}?"
    return nearest(key, [name for name in known if name.rpartition(".")[2] == last]) or nearest(key, known)


def _keys(section: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, section):
        below = _below(section, name)
        if below is not None:
            yield from _keys(below, f"{prefix}{name}.")
        elif name != "_target_":
            yield f"{prefix}{name}"


def _below(section: DictConfig, name: str) -> DictConfig | None:
    """The section of that name, or None where it is a value, or only refers to a section."""
    from omegaconf import DictConfig, OmegaConf

    if OmegaConf.is_interpolation(section, name) or OmegaConf.is_missing(section, name):
        return None
    node = section[name]
    return node if isinstance(node, DictConfig) else None


def fields_of(target: str) -> frozenset[str] | None:
    """The names that a class named in a `_target_` takes, or None where that cannot be told.

    verl refuses a key that is not among them when its workers start, long after the command line was accepted.
    """
    classes = _classes(config_folder().parent.parent)
    found, pending = set[str](), [target.rpartition(".")[2]]
    while pending:
        node = classes.get(pending.pop())
        if node is None:
            return None
        fields = (item.target for item in node.body if isinstance(item, ast.AnnAssign))
        found |= {field.id for field in fields if isinstance(field, ast.Name)}
        pending += [base.id for base in node.bases if isinstance(base, ast.Name)]
    return frozenset(found)


@lru_cache(maxsize=1)
def _classes(root: Path) -> dict[str, ast.ClassDef]:
    return {
        node.name: node for file in _files(root) for node in _parse(file) if isinstance(node, ast.ClassDef)
    }


def _files(root: Path) -> Iterator[Path]:
    for source in _SOURCES:
        path = root / source
        yield from sorted(path.glob("*.py")) if path.is_dir() else [path]


def _parse(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []
