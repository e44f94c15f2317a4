"""Words of a Hydra command line, `key=value`, as verl is configured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rm_gallery.core.errors import ConfigError

LAUNCHER = "verl.trainer.main_ppo"


@dataclass(frozen=True)
class Word:
    """One override: `mark` is Hydra's `+`, `++`, `~` or nothing; `value` is as it was written."""

    text: str
    mark: str
    key: str
    value: str


def key_of(word: str) -> str:
    """The key of an override, or the key itself."""
    return word.lstrip("+~").partition("=")[0].strip()


def overrides_only(words: Sequence[str]) -> list[str]:
    """The overrides of a whole command line, or the words themselves."""
    starts = [
        place
        for place, word in enumerate(words)
        if word.replace("/", ".").removesuffix(".py").endswith(LAUNCHER)
    ]
    return list(words[starts[-1] + 1 :]) if starts else list(words)


def parse(override: str) -> Word:
    """One override, taken apart.

    Raises:
        ConfigError: Hydra would not read it, or would read several runs.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if override.startswith("-"):
        raise ConfigError(f"{override!r} is an option; give key=value, for example data.train_batch_size=96")
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        said = str(error).splitlines()[0]
        raise ConfigError(
            f"{override!r} is not key=value as Hydra reads it ({said}); a value with special characters stands in "
            "quotes of its own: key='a=b'"
        ) from None
    if not parsed.key_or_group:
        raise ConfigError(f"{override!r} has no key; give key=value, for example data.train_batch_size=96")
    if parsed.is_sweep_override():
        raise ConfigError(f"{override!r} is several runs to Hydra; for a list write {key_of(override)}=[a,b]")
    rest = override.lstrip("+~")
    return Word(override, override[: len(override) - len(rest)], key_of(override), rest.partition("=")[2])
