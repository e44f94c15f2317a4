"""One response, a score on each of several dimensions.

dimensions:
  helpfulness: 2                                    # a weight; the scale is 0 to 4
  correctness: {weight: 1, scale: [1, 5], description: how right it is, from 1 to 5}
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from rm_gallery.core.data.samples import Row, Sample, conversation_text, row_name
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.rewards import RewardConfig, RewardFunction
from rm_gallery.core.tasks.base import Part, Task, is_score, no_label
from rm_gallery.core.templates import BasePromptTemplate, MultiDimensionTrainTemplate
from rm_gallery.core.templates.base import THINK

Scores = dict[str, int]
MOST_VERDICTS = 100_000
"""Combinations of scores: more could not be listed, which the modes that count them need."""
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.IGNORECASE | re.ASCII)


class Dimension(BaseModel):
    """What is rated, and how much it counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of its score and its reward; weights need not sum to 1."""
    scale: tuple[int, int] = (0, 4)
    """The lowest and the highest score."""
    description: str | None = None
    """What the prompt says of it; by default its name and scale."""


Dimensions: TypeAlias = dict[
    str, Annotated[Dimension, BeforeValidator(lambda v: {"weight": v} if _number(v) else v)]
]
"""By name, which is that of the label; a number alone is the weight."""


class _Given(BaseModel):
    dimensions: Dimensions


class MultiDimensionTask(Task[Scores]):
    """A score by dimension; score and reward of the whole are the weighted means over the dimensions.

    The reward of a dimension is the configured one; `max_error` counts for a scale from 0 to 4 and grows with wider ones.
    An output in which one score is missing or not legal is invalid as a whole.

    Args:
        dimensions: what is rated; by default the fields of `template`.
        weights: of the template's own dimensions (default: equal); need not sum to 1.

    Raises:
        ConfigError: the dimensions cannot be asked for; says why.
        DataError: the weights are not one for each dimension.
    """

    name: ClassVar[str] = "multi_dimension"
    template: type[BasePromptTemplate] = MultiDimensionTrainTemplate
    default_reward: ClassVar[str] = "exp_decay"
    fitting_rewards: ClassVar[tuple[str, ...] | None] = ("exp_decay", "linear", "exact")
    default_instruction: ClassVar[str] = (
        "Rate the response to the query on each dimension, from the lowest score of its scale to the highest."
    )
    scale: ClassVar[range] = range(5)

    def __init__(
        self,
        reward: RewardConfig | None = None,
        *,
        dimensions: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(reward, **options)
        given = None
        if dimensions is not None:
            if weights is not None:
                raise ConfigError("give the weights within the dimensions, or weights alone")
            given = _checked(dimensions)
            self.template = _template(given)
            weights = {name: dimension.weight for name, dimension in given.items()}
        self._settings: dict[str, Any] = (
            {"dimensions": {name: each.model_dump(exclude_none=True) for name, each in given.items()}}
            if given is not None
            else {"weights": dict(weights)}
            if weights is not None
            else {}
        )
        self.dimensions = tuple(self.template.verdict_fields())
        scales = {
            name: range(given[name].scale[0], given[name].scale[1] + 1) if given else self.scale
            for name in self.dimensions
        }
        count = math.prod(map(len, scales.values()))
        if count > MOST_VERDICTS:
            raise ConfigError(
                f"{len(scales)} dimensions have {count:,} verdicts together, and {MOST_VERDICTS:,} is the most: "
                "name fewer, or smaller scales"
            )
        self.weights = _shares(weights, self.dimensions)
        rewards = self._rewards(scales)
        self.parts = tuple(
            Part(name, scales[name], self.weights[name], rewards[name]) for name in self.dimensions
        )
        self.reward = self._weighted
        self._verdicts: list[Scores] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings

    def prompt(self, row: Row) -> str:
        sample = Sample.from_row(row)
        return self.template.format(
            enable_thinking=self.think,
            task=self.instruction,
            query=conversation_text(sample.input),
            response=sample.response,
        )

    def verdicts(self) -> Sequence[Scores]:
        if self._verdicts is None:
            self._verdicts = [
                dict(zip(self.dimensions, scores, strict=True))
                for scores in product(*(part.scale for part in self.parts))
            ]
        return self._verdicts

    def parse(self, text: str) -> Scores:
        parsed = self.template.parse(text)
        return {name: getattr(parsed, name) for name in self.dimensions}

    def format(self, verdict: Scores) -> str:
        return self.template(**verdict).to_text()

    def number(self, verdict: Scores) -> float:
        """The weighted mean of the dimensions."""
        return float(sum(weight * verdict[name] for name, weight in self.weights.items()))

    def truth(self, row: Row) -> Scores:
        labels = Sample.from_row(row).labels
        found = {name: labels.get(name) if row.get(name) is None else row[name] for name in self.dimensions}
        for name, value in found.items():
            if value is None:
                raise DataError(f"{row_name(row)}: {no_label(name, labels, row)}")
        try:
            return self.check_truth(found)
        except DataError as error:
            raise DataError(f"{row_name(row)}: {error}") from None

    def check_truth(self, value: Any) -> Scores:
        if not isinstance(value, Mapping):
            raise DataError(f"the labels are {value!r}, expected a score for each of {self.dimensions}")
        for part in self.parts:
            if not is_score(value.get(part.name), part.scale):
                raise DataError(
                    f"the label {part.name!r} is {value.get(part.name)!r}, expected a whole number from "
                    f"{part.scale[0]} to {part.scale[-1]}"
                )
        return {name: int(value[name]) for name in self.dimensions}

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: dict[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """As `Task.compute_score`, with what each dimension earns as `reward_NAME`."""
        result = super().compute_score(data_source, solution_str, ground_truth, extra_info)
        for part in self.parts:
            earned = self.reward_config.invalid_reward
            if result["parsed"]:
                predicted, true = result[f"predicted_{part.name}"], result[f"true_{part.name}"]
                earned = part.reward(predicted, true, data_source)
            result[f"reward_{part.name}"] = float(earned)
        return result

    def scored(self, predicted: Scores | None, true: Scores) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        error = 0.0
        for part in self.parts:
            name, label = part.name, true[part.name]
            fields[f"predicted_{name}"] = -1 if predicted is None else predicted[name]
            fields[f"true_{name}"] = label
            off = part.scale[-1] - part.scale[0] if predicted is None else abs(predicted[name] - label)
            error += part.weight * off
        return {**fields, "abs_error": float(error)}

    def _weighted(self, predicted: Scores, true: Scores, data_source: str = "unknown") -> float:
        return sum(
            part.weight * part.reward(predicted[part.name], true[part.name], data_source)
            for part in self.parts
        )

    def _rewards(self, scales: Mapping[str, range]) -> dict[str, RewardFunction]:
        if ":" in self.reward_config.name:  # one's own, which is loaded once and knows its scale
            return dict.fromkeys(scales, self.reward)
        found: dict[str, RewardFunction] = {}
        for name, scale in scales.items():
            width = self.reward_config.max_error * (scale[-1] - scale[0]) / 4
            fitted = self.reward_config.model_copy(update={"max_error": width})
            found[name] = fitted.build(self.default_reward, self.fitting_rewards)
        return found


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked(dimensions: Mapping[str, Any]) -> dict[str, Dimension]:
    try:
        found = _Given.model_validate({"dimensions": dict(dimensions)}).dimensions
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not found:
        raise ConfigError("dimensions names none: add one, as `helpfulness: 1`")
    lower = [name.lower() for name in found]
    for name, dimension in found.items():
        # a tag's letters may have any case, and its name is an attribute of the template
        if not _NAME.fullmatch(name) or name.lower() == THINK or hasattr(BasePromptTemplate, name):
            raise ConfigError(
                f"dimensions.{name}: a dimension cannot have this name; it becomes a tag of letters, digits and "
                "underscores"
            )
        if lower.count(name.lower()) > 1:
            raise ConfigError(f"dimensions.{name}: two dimensions differ only in the case of their letters")
        if dimension.scale[0] >= dimension.scale[1]:
            raise ConfigError(
                f"dimensions.{name}.scale is {list(dimension.scale)}: the lower score comes first"
            )
    return found


def _template(dimensions: Mapping[str, Dimension]) -> type[BasePromptTemplate]:
    fields: dict[str, Any] = {}
    for name, dimension in dimensions.items():
        low, high = dimension.scale
        described = dimension.description or f"{name} from {low} to {high}"
        fields[name] = (int, Field(ge=low, le=high, description=described))
    made: type[BasePromptTemplate] = create_model("Dimensions", __base__=BasePromptTemplate, **fields)
    made.prompt = MultiDimensionTrainTemplate.prompt
    return made


def _shares(weights: Mapping[str, float] | None, names: Sequence[str]) -> dict[str, float]:
    given = dict.fromkeys(names, 1.0) if weights is None else dict(weights)
    if set(given) != set(names) or min(given.values()) < 0 or sum(given.values()) <= 0:
        raise DataError(f"weights must be non-negative, one for each of {tuple(names)}; got {given}")
    return {name: given[name] / sum(given.values()) for name in names}
