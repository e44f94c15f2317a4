"""The card `rm_gallery.json` in a trained folder: the task the judge was trained on, so that use asks the same."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rm_gallery import __version__
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks.base import Task, get_task

CARD = "rm_gallery.json"
SCALAR: Literal["scalar"] = "scalar"
"""The card's `kind` where the model gives numbers and writes no verdict (`core/judge/scalar_card.py`)."""


class _Card(BaseModel):
    model_config = ConfigDict(extra="ignore")  # a newer version may have written more

    task: str
    think: bool = False
    instruction: str | None = None
    settings: dict[str, Any] = {}
    reasoning_model: bool = False
    max_response_length: int | None = None
    reward: RewardConfig = RewardConfig()


@dataclass(frozen=True)
class SavedTask:
    """What a trained folder says of itself."""

    task: Task[Any]
    reasoning_model: bool
    max_response_length: int | None
    """In tokens: where its answers were cut off in training."""


def answer_length(saved: SavedTask | None, task: Task[Any]) -> int:
    """Where to cut off a judge's answer, in tokens: as in its training, else with room for its kind of answer."""
    if saved is not None and saved.max_response_length is not None:
        return saved.max_response_length
    reasons = task.think or (saved is not None and saved.reasoning_model)
    return 2048 if reasons else 32


def save_task(
    folder: str | Path,
    name: str,
    task: Task[Any],
    *,
    reasoning_model: bool = False,
    max_response_length: int | None = None,
) -> None:
    """Write the card into `folder`. `name` is what `get_task` takes; a file in it is made absolute."""
    card = {
        "task": _absolute(name),
        "think": task.think,
        "instruction": task.instruction,
        **({"settings": task.settings} if task.settings else {}),
        "reasoning_model": reasoning_model,
        "max_response_length": max_response_length,
        "reward": {**task.reward_config.model_dump(), "name": _absolute(task.reward_config.name)},
        "rm_gallery": __version__,
    }
    target = Path(folder) / CARD
    part = target.with_suffix(".part")
    part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    part.replace(target)


def load_saved_task(folder: str | Path, *, trust_remote_code: bool = False) -> SavedTask | None:
    """The task of a folder that this toolkit trained; None where the folder has no card.

    A task or reward of one's own is code that the card names. Code that came with the folder runs only where
    `trust_remote_code` says so.

    Raises:
        ConfigError: the card is damaged, names a task that does not exist here or code that came with it, or is that of
            a scalar model.
    """
    path = Path(folder).expanduser() / CARD
    if not path.is_file():
        return None
    if card_kind(path) == SCALAR:
        raise ConfigError(
            f"{folder} is a scalar model: it scores responses and writes no verdict; `rmg eval` measures it"
        )
    try:
        card = _Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path} is damaged: {error.errors()[0]['msg']}") from None
    for name in (card.task, card.reward.name):
        if not trust_remote_code and _came_with(path.parent, name):
            raise ConfigError(
                f"{path} names {name}, code that came with it: to run that, trust it (--trust-remote-code)"
            )
    task = get_task(card.task, card.reward, think=card.think, instruction=card.instruction, **card.settings)
    return SavedTask(task, card.reasoning_model, card.max_response_length)


def card_kind(path: Path) -> str | None:
    """What a card is of: None of a judge's, of no card, and of one that cannot be read."""
    try:
        kind = json.loads(path.read_bytes()).get("kind")
    except (OSError, ValueError, AttributeError):
        return None
    return kind if isinstance(kind, str) else None


def _came_with(folder: Path, reference: str) -> bool:
    """Whether `file.py:object` or `module:object` lies in the folder, or in the checkout that it is part of; the one that
    is worked in is one's own."""
    place, colon, _ = reference.rpartition(":")
    if not colon:
        return False
    roots = [folder.resolve()]
    checkout = next((each for each in (roots[0], *roots[0].parents) if (each / ".git").exists()), None)
    if checkout is not None and not Path.cwd().is_relative_to(checkout):
        roots.append(checkout)
    if place.endswith(".py"):
        files = [Path(place).expanduser()]
    else:  # what is installed is nobody's folder
        entries = [Path(entry or ".") for entry in sys.path if not entry.endswith("-packages")]
        files = [file for entry in entries for file in _module_files(entry, place)]
    return any(file.resolve().is_relative_to(root) for file in files for root in roots)


def _module_files(entry: Path, module: str) -> list[Path]:
    if module.partition(".")[0] == __package__.partition(".")[0]:
        return []
    named = entry.joinpath(*module.split("."))
    return [file for file in (named, named.with_name(f"{named.name}.py")) if file.exists()]


def _absolute(reference: str) -> str:
    """`file.py:object` from whichever folder the judge is used in."""
    place, colon, name = reference.rpartition(":")
    return f"{Path(place).expanduser().resolve()}{colon}{name}" if place.endswith(".py") else reference
