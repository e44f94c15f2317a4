"""What would go wrong with a configuration of verl 0.9.1, one sentence each.

verl finds most of this itself: minutes later, one at a time, as an assertion in a worker. Each rule was read from the
source of verl 0.9.1 (`utils/config.py`, `workers/engine_workers.py`, `trainer/ppo/v1`, `workers/rollout`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rm_gallery.core.train.verl.choices import CHOICES, LOGGERS
from rm_gallery.core.train.verl.files import missing_files
from rm_gallery.core.train.verl.hydra_words import key_of
from rm_gallery.core.train.verl.legacy import VALUES, find, successors
from rm_gallery.core.train.verl.settings import ACTOR, REF, ROLLOUT, Settings
from rm_gallery.core.train.verl.sizes import batches, lengths, micro_batches, parallel

if TYPE_CHECKING:
    from omegaconf import DictConfig

REWARD_FN = "reward.custom_reward_function"

# estimators that compare the answers to one prompt with each other
_GROUPS = (
    *("grpo", "grpo_vectorized", "grpo_passk", "gdpo", "rloo", "rloo_vectorized", "opo", "gpg"),
    *("reinforce_plus_plus_baseline", "optimal_token_baseline", "tir_optimal_token_baseline"),
)
_WHOLE_NUMBERS = (
    *(f"data.{name}" for name in ("train_batch_size", "max_prompt_length", "max_response_length")),
    *("trainer.n_gpus_per_node", "trainer.nnodes", f"{REF}.log_prob_micro_batch_size_per_gpu"),
    *(f"{ACTOR}.{name}" for name in ("ppo_mini_batch_size", "ppo_micro_batch_size_per_gpu")),
    *(f"{ACTOR}.{name}" for name in ("ppo_max_token_len_per_gpu", "ulysses_sequence_parallel_size")),
    *(f"{ROLLOUT}.{name}" for name in ("n", "tensor_model_parallel_size", "data_parallel_size")),
    *(f"{ROLLOUT}.{name}" for name in ("max_model_len", "log_prob_micro_batch_size_per_gpu")),
)
# what every run has of its own: verl's defaults are the files of an example
_OWN = ("actor_rollout_ref.model.path", "data.train_files", "data.val_files")


def problems(
    config: DictConfig, given: Sequence[str], *, context: int | None = None, check_files: bool = False
) -> list[str]:
    """Everything that verl would ignore, stop at, or do otherwise than meant; one sentence each, with what to set.

    Args:
        config: verl's whole configuration, as `compose` returns it.
        given: the overrides (or only their keys) that led to it.
        context: the model's context in tokens, where it is known.
        check_files: also look for the files it names. Relative paths are taken from the current folder.
    """
    settings = Settings(config, given, context)
    found = [sentence for rule in _RULES for sentence in rule(settings)]
    return found + (list(missing_files(settings.get)) if check_files else [])


def _without_effect(s: Settings) -> Iterator[str]:
    for key, word in s.words.items():
        entry = find(key)
        if entry is None or word.startswith("~") or (entry.plus and word.startswith("+")):
            continue
        if entry.own_dataset and s.get("data.custom_cls.path"):
            continue
        new = [key_of(successor) for successor in successors(entry, key)]
        same = [s.words.get(successor, "").partition("=")[2] == word.partition("=")[2] for successor in new]
        if not entry.refused and new and all(same) and s.words.keys() >= set(new):
            continue  # both are given, and say the same
        fate = "stops verl 0.9.1" if entry.refused else "has no effect in verl 0.9.1"
        yield f"{key} {fate}: {entry.reason}; {'set ' + ' and '.join(new) if new else 'leave it out'}"


def _values(s: Settings) -> Iterator[str]:
    for key in _WHOLE_NUMBERS:
        if s.get(key) is not None and s.number(key) is None:
            yield f"{key} is {s.get(key)!r}: set it to a whole number above 0"
    for key in _OWN:
        if key not in s.words:
            yield f"{key} is not given, and verl's default is of an example ({s.get(key)}): set it"
    old_values = [(entry.key, old) for entry in VALUES for old in entry.old]
    for entry in VALUES:
        if (value := s.get(entry.key)) in entry.old:
            todo = f"set it to {entry.new}" if entry.new else "leave the key out"
            yield f"{entry.key} is {value!r}, which verl 0.9.1 does not know: {entry.reason}; {todo}"
    for key, choice in CHOICES.items():
        value = s.get(key)
        if value in choice.values or (key, value) in old_values or (value is None and not choice.required):
            continue
        if choice.when is None or s.get(choice.when[0]) == choice.when[1]:
            is_what = "not set" if value is None else repr(value)
            yield f"{key} is {is_what}: set it to one of {', '.join(choice.values)}"
    loggers = s.get("trainer.logger") or []
    for name in loggers if isinstance(loggers, Sequence) and not isinstance(loggers, str) else [loggers]:
        if name not in LOGGERS:
            yield f"trainer.logger names {name!r}, which verl does not know: set it to some of {', '.join(LOGGERS)}"
    if s.get("trainer.use_v1") is False:
        yield "trainer.use_v1 is false, which starts verl's deprecated trainer: leave it out"


def _estimator(s: Settings) -> Iterator[str]:
    estimator = s.get("algorithm.adv_estimator")
    if estimator == "gae" and s.critic and "critic.model.path" not in s.words:
        how = "given" if "algorithm.adv_estimator" in s.words else "verl's default"
        yield (
            f"algorithm.adv_estimator is gae ({how}), which trains a critic as well, and critic.model.path is not "
            "given: set algorithm.adv_estimator=grpo, or the critic's model"
        )
    if estimator not in _GROUPS:
        return
    if (n := s.number(f"{ROLLOUT}.n")) and n < 2:
        yield (
            f"{ROLLOUT}.n is {n}: {estimator} compares the answers to one prompt with each other and needs several; "
            "set it to 4 or more"
        )
    if s.get(f"{ROLLOUT}.temperature") == 0:
        yield (
            f"{ROLLOUT}.temperature is 0, so that all answers to one prompt are the same and nothing is learned: "
            "set it to 1.0"
        )


def _clip(s: Settings) -> Iterator[str]:
    clip, sides = f"{ACTOR}.clip_ratio", (f"{ACTOR}.clip_ratio_low", f"{ACTOR}.clip_ratio_high")
    left = [side for side in sides if side not in s.words and s.get(side) not in (None, s.get(clip))]
    if clip in s.words and left:
        verb = "goes" if len(left) == 1 else "go"
        yield (
            f"{clip} ({s.get(clip)}) has no effect, for {' and '.join(left)} ({s.get(left[0])}) {verb} before it: set "
            f"{'it' if len(left) == 1 else 'both'} to {s.get(clip)} as well"
        )


def _classes(s: Settings) -> Iterator[str]:
    if s.get("data.custom_cls.path") and not s.get("data.custom_cls.name"):
        yield "data.custom_cls.path is set and data.custom_cls.name is not: set it to the class in that file"
    if s.get(f"{REWARD_FN}.path") and not s.get(f"{REWARD_FN}.name"):
        yield f"{REWARD_FN}.path is set and {REWARD_FN}.name is not: set it to the function in that file"


def _references(s: Settings) -> Iterator[str]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.to_container(s.config, resolve=True)
    except OmegaConfBaseException as error:
        yield f"{error.full_key or 'a value'} refers to something that is not there: {str(error).splitlines()[0]}"


_RULES: tuple[Callable[[Settings], Iterator[str]], ...] = (
    _without_effect,
    _references,
    _values,
    _estimator,
    batches,
    micro_batches,
    parallel,
    lengths,
    _clip,
    _classes,
)
