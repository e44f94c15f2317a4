"""One response, one whole score on a fixed scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rm_gallery.core.data.samples import Row, Sample, conversation_text, row_name
from rm_gallery.core.errors import DataError
from rm_gallery.core.tasks.base import Task, is_score, no_label
from rm_gallery.core.templates import BasePromptTemplate, PointwiseTrainTemplate


class PointwiseTask(Task[int]):
    """A score from 0 to 4; the reward falls with the distance to the label."""

    name: ClassVar[str] = "pointwise"
    template: type[BasePromptTemplate] = PointwiseTrainTemplate
    default_reward: ClassVar[str] = "exp_decay"
    fitting_rewards: ClassVar[tuple[str, ...] | None] = ("exp_decay", "linear", "exact", "rps", "log_score")
    default_instruction: ClassVar[str] = "How helpful is the response to the query?"
    label: ClassVar[str] = "helpfulness"
    scale: ClassVar[range] = range(5)

    def prompt(self, row: Row) -> str:
        sample = Sample.from_row(row)
        return self.template.format(
            enable_thinking=self.think,
            task=self.instruction,
            query=conversation_text(sample.input),
            response=sample.response,
        )

    def verdicts(self) -> range:
        return self.scale

    def parse(self, text: str) -> int:
        return int(getattr(self.template.parse(text), self._field))

    def format(self, verdict: int) -> str:
        return self.template(**{self._field: verdict}).to_text()

    def truth(self, row: Row) -> int:
        value = row.get(self.label)
        if value is None:
            labels = Sample.from_row(row).labels
            if self.label not in labels:
                raise DataError(f"{row_name(row)}: {no_label(self.label, labels, row)}")
            value = labels[self.label]
        try:
            return self.check_truth(value)
        except DataError as error:
            raise DataError(f"{row_name(row)}: {error}") from None

    def check_truth(self, value: Any) -> int:
        if isinstance(value, Mapping):
            value = value.get(self.label)
        if not is_score(value, self.scale):
            raise DataError(
                f"the label {self.label!r} is {value!r}, expected a whole number from {self.scale[0]} to "
                f"{self.scale[-1]}; convert another scale to this one (`scale` and `to` of a column), or train the "
                "task multi_dimension, whose dimensions have scales of their own"
            )
        return int(value)

    def scored(self, predicted: int | None, true: int) -> dict[str, Any]:
        worst = float(self.scale[-1] - self.scale[0])
        return {
            f"predicted_{self.label}": -1 if predicted is None else predicted,
            f"true_{self.label}": true,
            "abs_error": worst if predicted is None else float(abs(predicted - true)),
        }

    @property
    def _field(self) -> str:
        return next(iter(self.template.verdict_fields()))
