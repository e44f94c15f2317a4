"""`RewardConfig`: which reward a task pays, by name or by the path of one's own function."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rm_gallery.core.errors import ConfigError, nearest
from rm_gallery.core.rewards import functions
from rm_gallery.core.rewards.scoring import RULES, certain, score

RewardFunction = Callable[..., float]
"""(verdict, truth, data_source) → reward; the last may be left out. Verdicts are `int` (of several dimensions, one's
score at a time) or `"A" | "B" | "tie"`."""


class RewardConfig(BaseModel):
    """The `reward:` section of a training YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "auto"
    """`exp_decay`, `linear`, `exact`, `preference`, or one's own: `package.module:function` or
    `path/to/file.py:function`, called as `(verdict, truth)`, and with `data_source` where it has a parameter of that
    name. `auto` is the task's own: `exp_decay` for scores, `preference` for pairs. `rps` and `log_score` score a
    whole distribution (`scoring.py`)."""
    k: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """How fast `exp_decay` falls."""
    max_error: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    """The width of the scale: the largest possible error."""
    tie: float = Field(default=0.0, ge=0, le=1)
    """What `preference` pays where just one of verdict and truth is a tie."""
    invalid_reward: float = Field(default=0.0, allow_inf_nan=False)
    """What an output without a legal verdict earns; below the worst valid answer's reward by default."""

    @model_validator(mode="after")
    def _rule_fits(self) -> RewardConfig:
        if self.name in RULES and self.invalid_reward:
            raise ValueError(
                f"reward.invalid_reward has no effect with reward.name {self.name}, which gives 0 to an answer "
                "without a legal verdict: leave it out"
            )
        return self

    @property
    def is_rule(self) -> bool:
        """Whether it scores a distribution, and a single verdict only as one that is certain of it."""
        return self.name in RULES

    @property
    def by_source(self) -> bool:
        """Whether it is one's own that is told the row's `data_source`."""
        return ":" in self.name and _wants_source(load_object(self.name))

    def score(self, ranked: Sequence[Any], probabilities: Sequence[float], true: Any) -> float:
        """What a distribution over the verdicts `ranked` earns from a scoring rule; it need not sum to 1."""
        return score(RULES[self.name], ranked, probabilities, true)

    def build(
        self,
        default: str,
        fitting: Sequence[str] | None = None,
        ranked: Callable[[], Sequence[Any]] | None = None,
    ) -> RewardFunction:
        """Return the function.

        Args:
            default: the task's own reward, which `auto` stands for.
            fitting: the built-in rewards that can score the task's verdicts; None: all of them.
            ranked: gives the task's verdicts from one end of their scale to the other, for scoring rules.

        Raises:
            ConfigError: no such reward, one that does not fit the task, or its file or module cannot be loaded.
        """
        name = default if self.name == "auto" else self.name
        built_in: dict[str, RewardFunction] = {
            "exp_decay": lambda p, t, _="": functions.exp_decay(p, t, k=self.k, max_error=self.max_error),
            "linear": lambda p, t, _="": functions.linear_decay(p, t, max_error=self.max_error),
            "exact": lambda p, t, _="": functions.exact_match(p, t),
            "preference": lambda p, t, _="": functions.preference_match(p, t, tie=self.tie),
        }
        known = [*built_in, *RULES]
        if name in known and fitting is not None and name not in fitting:
            raise ConfigError(
                f"reward.name is {name!r}, which cannot score this task's verdicts; use auto, "
                f"{', '.join(fitting)} or one's own"
            )
        if name in built_in:
            return built_in[name]
        if name in RULES:
            if ranked is None:
                raise ConfigError(f"reward.name is {name!r}, which needs the verdicts of a task")
            return certain(RULES[name], ranked)
        if ":" not in name:
            raise ConfigError(
                f"reward.name is {name!r}; the built-in rewards are {', '.join(known)}, and one's own is "
                f"written module:function or file.py:function.{nearest(name, known)}"
            )
        function = load_object(name)
        if not callable(function):
            raise ConfigError(f"reward.name is {name!r}, which is {function!r} and not a function")
        return _checked(function, name)


def load_object(reference: str) -> Any:
    """Load `package.module:object` or `path/to/file.py:object`.

    Raises:
        ConfigError: it does not exist; says which part is missing.
    """
    place, _, attribute = reference.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise ConfigError(f"{reference}: there is no file {path}")
        spec = importlib.util.spec_from_file_location(f"_rm_gallery_user_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{reference}: {path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pydantic look their module up by name
        try:
            spec.loader.exec_module(module)
        except (
            Exception
        ) as error:  # whatever one's own code raises: the file is not loaded, and not half of it
            del sys.modules[spec.name]
            raise ConfigError(f"{reference}: {path} does not load: {_said(error)}") from error
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{reference}: {error}; is it on PYTHONPATH?") from error
        except Exception as error:  # also of the names that import_module refuses
            raise ConfigError(f"{reference}: {place!r} does not load: {_said(error)}") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{reference}: {place} has no {attribute!r}.{nearest(attribute, dir(module))}")
    return getattr(module, attribute)


def _wants_source(function: Any) -> bool:
    try:
        return "data_source" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


def _checked(function: Any, name: str) -> RewardFunction:
    told = _wants_source(function)

    def reward(predicted: Any, true: Any, data_source: str = "unknown") -> float:
        value = function(predicted, true, **({"data_source": data_source} if told else {}))
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):  # the last is torch's, of a tensor of several elements
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"the reward {name} returned {value} for verdict {predicted!r}, truth {true!r}")
        return number

    return reward


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
