"""`Task`: prompt, parser, reward and ground truth of a judging task, in one object used everywhere."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from numbers import Real
from typing import Any, ClassVar, Generic, TypeVar

from rm_gallery.core.data.samples import Row, conversation, response_count
from rm_gallery.core.errors import ConfigError, InvalidVerdict, nearest
from rm_gallery.core.rewards import RewardConfig, RewardFunction, load_object
from rm_gallery.core.templates import BasePromptTemplate

V = TypeVar("V")


@dataclass(frozen=True)
class Part:
    """One of the scores that a verdict is made of.

    Attributes:
        name: of the dimension, its label and its tag.
        scale: the legal scores.
        weight: of its score and of its reward in the verdict's; the weights of all parts sum to 1.
        reward: what this score alone earns.
    """

    name: str
    scale: range
    weight: float
    reward: RewardFunction


class Task(ABC, Generic[V]):
    """What a judge is asked and how its answer counts. `V` is the type of a verdict.

    Training (both engines), evaluation, graders and the service all go through this class, so that a model
    is asked at use what it was trained on.

    Args:
        reward: what a verdict earns.
        think: the prompt asks for `<think>…</think>` before the verdict. For models that reason by
            themselves, leave it off and let the chat template ask.
        instruction: replaces the task's own instruction text.
    """

    name: ClassVar[str]
    template: type[BasePromptTemplate]
    default_reward: ClassVar[str]
    fitting_rewards: ClassVar[tuple[str, ...] | None] = None
    """The built-in rewards that can score this task's verdicts; None: all."""
    default_instruction: ClassVar[str]
    responses: ClassVar[int] = 1
    """How many responses a question is about."""
    parts: tuple[Part, ...] = ()
    """Where a verdict is a dict of scores: what they are. Evaluation measures each of them as a score by itself."""

    def __init__(
        self, reward: RewardConfig | None = None, *, think: bool = False, instruction: str | None = None
    ) -> None:
        self.reward_config = reward or RewardConfig()
        self.reward = self.reward_config.build(self.default_reward, self.fitting_rewards, self.ranked)
        self.think = think
        self.instruction = instruction or self.default_instruction

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"{type(self).__name__}(reward={self.reward_config.name!r}{given})"

    @property
    def settings(self) -> dict[str, Any]:
        """What the constructor takes beside reward, think and instruction, as JSON: the saved judge's card keeps it."""
        return {}

    # -- the question

    @abstractmethod
    def prompt(self, row: Row) -> str:
        """The text of the question about this row. Needs no label."""

    def messages(self, row: Row) -> list[dict[str, str]]:
        """The chat messages that are put to the judge for this row."""
        return [{"role": "user", "content": self.prompt(row)}]

    # -- the answer

    @abstractmethod
    def verdicts(self) -> Sequence[V]:
        """Every legal verdict, in the order of the scale."""

    def ranked(self) -> Sequence[V]:
        """Every legal verdict from one end of the scale to the other."""
        return self.verdicts()

    @abstractmethod
    def parse(self, text: str) -> V:
        """Read the verdict from a judge's output; raises `InvalidVerdict`."""

    @abstractmethod
    def format(self, verdict: V) -> str:
        """The canonical text of a verdict: `parse(format(v)) == v`."""

    def number(self, verdict: V) -> float | None:
        """A verdict as the one number by which responses are ranked; None of one that is no number."""
        if isinstance(verdict, Mapping):
            return float(sum(verdict.values()) / len(verdict))
        return float(verdict) if hasattr(verdict, "__float__") else None

    # -- the truth

    @abstractmethod
    def truth(self, row: Row) -> V:
        """The row's label as a verdict.

        Raises:
            DataError: it is missing or not legal; names the row.
        """

    @abstractmethod
    def check_truth(self, value: Any) -> V:
        """A ground truth as handed to `compute_score`, as a verdict. Raises `DataError`."""

    def cluster(self, row: Row) -> str:
        """The id of the row's prompt: rows that share it are not independent (16 hex digits)."""
        text = "\x1e".join(f"{message.role}\x1f{message.content}" for message in conversation(row))
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]

    # -- the reward

    @abstractmethod
    def scored(self, predicted: V | None, true: V) -> dict[str, Any]:
        """The fields of `compute_score` beside `score`, `parsed` and `data_source`; None is invalid."""

    def score_text(self, text: str, true: V, data_source: str = "unknown") -> tuple[V | None, float]:
        """(verdict, reward) of a judge's output; (None, `invalid_reward`) where it cannot be parsed."""
        try:
            predicted = self.parse(text)
        except InvalidVerdict:
            return None, self.reward_config.invalid_reward
        return predicted, self.reward(predicted, true, data_source)

    def score_distribution(self, probabilities: Sequence[float], true: V) -> float:
        """What a distribution over `verdicts()` earns from a scoring rule (`reward_config.is_rule`).

        The probabilities need not sum to 1: what is missing is that of no legal verdict.
        """
        verdicts, ranked = list(self.verdicts()), self.ranked()
        weights = [probabilities[verdicts.index(verdict)] for verdict in ranked]
        return self.reward_config.score(ranked, weights, true)

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: dict[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Score one output, in the signature that verl and our local engine call.

        `extra_info["opening"]` is what the chat template wrote of the answer before it (`templates.opening`).

        Returns a dict with the same keys and types on every path: `score` (float), `accuracy` and `acc`
        (0 or 1), `parsed` (0 or 1), `data_source`, and the task's own (`scored`).

        Raises:
            DataError: the ground truth is missing or not legal. An unparsable output is not an error: it
                earns `invalid_reward` and `parsed` 0.
        """
        true = self.check_truth(self.ground_truth(ground_truth, extra_info or {}))
        written = str((extra_info or {}).get("opening") or "") + solution_str
        predicted, reward = self.score_text(written, true, data_source)
        accuracy = int(predicted is not None and predicted == true)
        return {
            "score": float(reward),
            **self.scored(predicted, true),
            "accuracy": accuracy,
            "acc": accuracy,
            "parsed": int(predicted is not None),
            "data_source": data_source,
        }

    def ground_truth(self, ground_truth: Any, extra_info: dict[str, Any]) -> Any:
        """Where the truth lies in what `compute_score` is handed."""
        return ground_truth


def get_task(name: str, reward: RewardConfig | None = None, **options: Any) -> Task[Any]:
    """Build a task by name (`pointwise`, `pairwise`, `multi_dimension`) or by `module.path:Class`.

    Raises:
        ConfigError: no such task.
    """
    known = _known()
    if name in known:
        return _built(known[name], reward, options)
    if ":" not in name:
        raise ConfigError(
            f"task is {name!r}; the built-in tasks are {', '.join(known)}, and one's own is written "
            f"module.path:Class.{nearest(name, list(known))}"
        )
    found = load_object(name)
    if isinstance(found, Task):
        _check_unchanged(name, found, reward, options)
        return found
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ConfigError(f"task {name}: expected a Task or a subclass of it, found {type(found).__name__}")
    return _built(found, reward, options)


def _built(found: type[Task[Any]], reward: RewardConfig | None, options: dict[str, Any]) -> Task[Any]:
    known = {
        name for each in found.__mro__ if "__init__" in vars(each) for name in signature(each).parameters
    }
    for name in options:
        if name not in known:
            raise ConfigError(f"the task {found.name} has no {name}")
    return found(reward, **options)


def _check_unchanged(
    name: str, task: Task[Any], reward: RewardConfig | None, options: dict[str, Any]
) -> None:
    """An object comes with its settings made: refuse others rather than drop them."""
    own = {"reward": task.reward_config, "think": task.think, "instruction": task.instruction}
    asked = {"reward": reward, **options}
    unset = (None, False, RewardConfig())
    refused = [key for key, value in asked.items() if value not in unset and value != own.get(key)]
    if refused:
        raise ConfigError(
            f"task {name} is an object with its own {', '.join(refused)}: set it there, or name its class"
        )


def no_label(name: str, labels: Mapping[str, Any], row: Row) -> str:
    """Why a row has no label of that name."""
    there = [each for each, value in labels.items() if value is not None]
    if response_count(row) > 1:
        return f"there is no label {name!r}: it is a pair of responses, for the task pairwise"
    return f"there is no label {name!r}" + (
        f", only {', '.join(there)}.{nearest(name, there)}" if there else "; the row has no label at all"
    )


def is_score(value: Any, scale: range) -> bool:
    """Whether a label is a whole number of `scale`.

    One that passed through pandas or NumPy may be 3.0 or int64(3); True and "3" are no labels.
    """
    return not isinstance(value, bool) and isinstance(value, (int, float, Real)) and value in scale


def task_names() -> list[str]:
    """The names of the built-in tasks."""
    return list(_known())


def _known() -> dict[str, type[Task[Any]]]:
    from rm_gallery.core import tasks

    return {cls.name: cls for cls in (tasks.PointwiseTask, tasks.PairwiseTask, tasks.MultiDimensionTask)}
