"""One response, a score on each of several dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, ClassVar

from rm_gallery.core.data.samples import Row, Sample, conversation_text, row_name
from rm_gallery.core.errors import DataError
from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks.base import Task, is_score
from rm_gallery.core.templates import BasePromptTemplate, MultiDimensionTrainTemplate

Scores = dict[str, int]


class MultiDimensionTask(Task[Scores]):
    """Scores from 0 to 4 by dimension; the reward is the weighted mean of the dimensions' rewards.

    The dimensions are the fields of `template`. `weights` (default: equal) need not sum to 1.
    """

    name: ClassVar[str] = "multi_dimension"
    template: type[BasePromptTemplate] = MultiDimensionTrainTemplate
    default_reward: ClassVar[str] = "exp_decay"
    fitting_rewards: ClassVar[tuple[str, ...] | None] = ("exp_decay", "linear", "exact")
    default_instruction: ClassVar[str] = (
        "Rate the response to the query on each dimension, on a scale from 0 (worst) to 4 (best)."
    )
    scale: ClassVar[range] = range(5)

    def __init__(
        self,
        reward: RewardConfig | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(reward, **options)
        self.dimensions = tuple(self.template.verdict_fields())
        given = dict.fromkeys(self.dimensions, 1.0) if weights is None else dict(weights)
        if set(given) != set(self.dimensions) or min(given.values()) < 0 or sum(given.values()) <= 0:
            raise DataError(f"weights must be non-negative, one for each of {self.dimensions}; got {given}")
        self.weights = {name: given[name] / sum(given.values()) for name in self.dimensions}
        per_dimension = self.reward
        self.reward = lambda predicted, true: sum(
            weight * per_dimension(predicted[name], true[name]) for name, weight in self.weights.items()
        )

    def prompt(self, row: Row) -> str:
        sample = Sample.from_row(row)
        return self.template.format(
            enable_thinking=self.think,
            task=self.instruction,
            query=conversation_text(sample.input),
            response=sample.response,
        )

    def verdicts(self) -> Sequence[Scores]:
        return [
            dict(zip(self.dimensions, scores, strict=True))
            for scores in product(self.scale, repeat=len(self.dimensions))
        ]

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
        try:
            return self.check_truth(labels)
        except DataError as error:
            raise DataError(f"{row_name(row)}: {error}") from None

    def check_truth(self, value: Any) -> Scores:
        if not isinstance(value, Mapping):
            raise DataError(f"the labels are {value!r}, expected a score for each of {self.dimensions}")
        wrong = {
            name: value.get(name) for name in self.dimensions if not is_score(value.get(name), self.scale)
        }
        if wrong:
            raise DataError(f"the labels {wrong} are missing or not whole numbers from 0 to {self.scale[-1]}")
        return {name: int(value[name]) for name in self.dimensions}

    def scored(self, predicted: Scores | None, true: Scores) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name in self.dimensions:
            fields[f"predicted_{name}"] = -1 if predicted is None else predicted[name]
            fields[f"true_{name}"] = true[name]
        errors = (
            [abs(predicted[name] - true[name]) for name in self.dimensions] if predicted else [self.scale[-1]]
        )
        return {**fields, "abs_error": sum(errors) / len(errors)}
