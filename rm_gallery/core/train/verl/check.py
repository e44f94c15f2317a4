"""Is this verl command right? Asked of verl's own configuration, before anything is started.

`rmg verl check` is `explain`: it reads command lines of older versions too, and says what became of each key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from rm_gallery.core.errors import ConfigError, nearest
from rm_gallery.core.models.require import require
from rm_gallery.core.train.verl import legacy
from rm_gallery.core.train.verl.hydra_words import Word, key_of, overrides_only, parse
from rm_gallery.core.train.verl.installed import config_folder, require_verl
from rm_gallery.core.train.verl.keys import did_you_mean, fields_of, place_of
from rm_gallery.core.train.verl.problems import problems

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["Finding", "Report", "compose", "explain", "problems"]

Status = Literal["ok", "ignored", "renamed", "removed", "refused"]


@dataclass(frozen=True)
class Finding:
    """What verl 0.9.1 makes of one override.

    Attributes:
        status: ok; ignored: accepted, and without effect; renamed or removed: an older version's, at which verl
            stops; refused: not of any version known here, or not of Hydra's form.
        replacement: the overrides to give instead; empty where nothing takes its place.
        reason: why; for an ok one, what is worth knowing, if anything.
    """

    key: str
    value: str
    status: Status
    replacement: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """What `explain` found.

    Attributes:
        findings: one for each override, in their order.
        problems: what is wrong with the configuration once the replacements are made.
        corrected: the overrides with the replacements made; what verl refuses and nothing replaces is left out.
    """

    findings: tuple[Finding, ...]
    problems: tuple[str, ...]
    corrected: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether verl would do all that the overrides say."""
        return not self.problems and all(finding.status == "ok" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def compose(overrides: Sequence[str]) -> DictConfig:
    """verl's own configuration of `main_ppo` with these overrides.

    Raises:
        MissingDependency: verl is not installed.
        ConfigError: another version is; an override is malformed, or names a key that verl does not know.
    """
    require_verl()
    require("verl", "hydra")
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        parse(override)
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base=None):
            return hydra.compose("ppo_trainer", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_sentence(str(error), overrides)) from None


def explain(overrides: Sequence[str], *, context: int | None = None, check_files: bool = False) -> Report:
    """What verl 0.9.1 makes of a command line that may have been written for another version.

    Args:
        overrides: `key=value` words. Whatever stands before and with `verl.trainer.main_ppo` is passed over.
        context, check_files: as in `problems`.

    Raises:
        MissingDependency, ConfigError: as `compose`, except for keys of other versions and unknown ones.
    """
    require_verl()
    require("verl", "hydra")
    words = [parse(word) for word in overrides_only(overrides)]
    groups = [word.text for word in words if _is_group(word.key)]
    base = compose(groups)
    given = {word.key: word for word in words}
    findings = [_judge(word, base, given) for word in words]
    corrected = list(dict.fromkeys(_corrected(words, findings, given)))
    found = problems(compose(corrected), corrected, context=context, check_files=check_files)
    return Report(tuple(findings), tuple(found), tuple(corrected))


def _sentence(message: str, overrides: Sequence[str]) -> str:
    """What Hydra said, as a sentence for the user."""
    if found := re.search(r"Could not override '([^']+)'", message):
        return f"{found[1]} is not a key of verl 0.9.1.{did_you_mean(found[1], compose([]))}"
    if found := re.search(r"An item is already at '([^']+)'", message):
        return f"+{found[1]}: verl has that key already; give it without the +"
    if found := re.search(r"Could not delete from config. '([^']+)' does not exist", message):
        return f"~{found[1]}: verl has no such key.{did_you_mean(found[1], compose([]))}"
    groups = [override for override in overrides if _is_group(key_of(override))]
    which = ", ".join(groups) if groups else "these overrides"
    said = " ".join(message.partition("Config search path")[0].split())
    return f"verl's configuration cannot be made with {which}: {said}"


def _is_group(key: str) -> bool:
    """Whether it chooses one of verl's files, as `model_engine=megatron`, rather than a value."""
    return "@" in key or "/" in key or ("." not in key and (config_folder() / key).is_dir())


def _judge(word: Word, base: DictConfig, given: dict[str, Word]) -> Finding:
    key, value = word.key, word.value
    if key.partition(".")[0] == "hydra" or _is_group(key):
        return Finding(key, value, "ok")
    place = place_of(base, key)
    own_dataset = "data.custom_cls.path" in given
    entry = legacy.find(key)
    read = entry and ((entry.own_dataset and own_dataset) or (entry.plus and word.mark) or word.mark == "~")
    if entry and not read:
        return _legacy(word, entry, base, given)
    for old in legacy.VALUES:
        if key == old.key and value.strip("'\"") in old.old:
            new = (f"{key}={old.new}",) if old.new else ()
            return Finding(key, value, "renamed" if new else "removed", new, old.reason)
    if place.missing is None:
        if word.mark == "+":
            reason = "verl has that key already, and Hydra takes + for new ones only"
            return Finding(key, value, "refused", (f"{key}={value}",), reason)
        return Finding(key, value, "ok", reason=legacy.NOTES.get(key, ""))
    if word.mark in ("", "~"):
        return Finding(key, value, "refused", reason=f"verl has no such key.{did_you_mean(key, base)}")
    known = fields_of(place.target) if place.target else None
    if known is not None and place.missing not in known:
        reason = (
            f"verl's class for this section takes no {place.missing}.{nearest(place.missing, sorted(known))}"
        )
        return Finding(key, value, "refused", reason=reason)
    return Finding(key, value, "ok")


def _legacy(word: Word, entry: legacy.Legacy, base: DictConfig, given: dict[str, Word]) -> Finding:
    value = _carried(word.value, entry, given)
    new = []
    for successor in legacy.successors(entry, word.key) if value is not None else []:
        plain = successor.lstrip("+")
        if place_of(base, plain).missing is None:
            new.append(f"{plain}={value}")
        elif successor.startswith("+"):
            new.append(f"+{plain}={value}")
    place = place_of(base, word.key)
    carried = word.mark and place.missing and not place.target  # a + made it a key that nothing reads
    if entry.refused and not carried:
        return Finding(word.key, word.value, "renamed" if new else "removed", tuple(new), entry.reason)
    return Finding(word.key, word.value, "ignored", tuple(new), entry.reason)


def _carried(value: str, entry: legacy.Legacy, given: dict[str, Word]) -> str | None:
    """The value for the key that takes the place, or None where there is nothing to carry over."""
    if entry.value == "same":
        return value
    if entry.value == "switch":
        return "1" if value.lower() in ("true", "1", "yes", "on") else None

    def number(key: str, default: int) -> int:
        text = given[key].value if key in given else ""
        return int(text) if text.isdecimal() else default

    ranks = number("trainer.n_gpus_per_node", 8) * number("trainer.nnodes", 1)
    ranks //= number("actor_rollout_ref.actor.ulysses_sequence_parallel_size", 1)
    return str(max(1, int(value) // max(1, ranks))) if value.isdecimal() else None


def _corrected(words: list[Word], findings: list[Finding], given: dict[str, Word]) -> Iterator[str]:
    for word, finding in zip(words, findings, strict=True):
        if finding.status == "ok":
            yield word.text
            continue
        for new in finding.replacement:
            if key_of(new) == word.key or key_of(new) not in given:  # one that is given itself stands
                yield new
