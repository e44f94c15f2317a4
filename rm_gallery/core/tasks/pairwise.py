"""Two responses, one preference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar

from rm_gallery.core.data.samples import Pair, Row, conversation_text, row_name
from rm_gallery.core.errors import DataError
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.templates import BasePromptTemplate, PairwiseComparisonTemplate

_LEGAL = ("A", "B", "tie")


class PairwiseTask(Task[str]):
    """`A`, `B` or `tie`; the reward is 1 for the right preference."""

    name: ClassVar[str] = "pairwise"
    template: type[BasePromptTemplate] = PairwiseComparisonTemplate
    default_reward: ClassVar[str] = "preference"
    responses: ClassVar[int] = 2
    fitting_rewards: ClassVar[tuple[str, ...] | None] = ("preference", "exact", "rps", "log_score")
    default_instruction: ClassVar[str] = "Which of the two responses to the query is more helpful?"

    def prompt(self, row: Row) -> str:
        pair = Pair.unlabelled(row)
        return self.template.format(
            enable_thinking=self.think,
            task=self.instruction,
            query=conversation_text(pair.input),
            response_a=pair.response_a,
            response_b=pair.response_b,
        )

    def verdicts(self) -> tuple[str, ...]:
        return _LEGAL

    def ranked(self) -> tuple[str, ...]:
        return ("A", "tie", "B")

    def parse(self, text: str) -> str:
        return str(getattr(self.template.parse(text), "preference"))  # noqa: B009 - a subclass's field

    def format(self, verdict: str) -> str:
        return self.template.model_validate({"preference": verdict}).to_text()

    def truth(self, row: Row) -> str:
        if row.get("preferred") is not None:
            try:
                self.check_truth(row["preferred"])
            except DataError as error:
                raise DataError(f"{row_name(row)}: {error}") from None
        return Pair.from_row({**row, "preference_strength": 0}).preferred

    def check_truth(self, value: Any) -> str:
        if isinstance(value, Mapping):
            value = value.get("preferred", value.get("preference"))
        if not isinstance(value, str) or value not in _LEGAL:
            raise DataError(f"the preferred response is {value!r}, expected 'A', 'B' or 'tie'")
        return str(value)

    def ground_truth(self, ground_truth: Any, extra_info: dict[str, Any]) -> Any:
        if ground_truth is None or (isinstance(ground_truth, str) and not ground_truth):
            return _metadata(extra_info).get("preferred")
        return ground_truth

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: dict[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """As `Task.compute_score`, with the row's `preference_strength` where it is known (else 0)."""
        result = super().compute_score(data_source, solution_str, ground_truth, extra_info)
        sources = (ground_truth, _metadata(extra_info or {}))
        known = [s.get("preference_strength") for s in sources if isinstance(s, Mapping)]
        strengths = (_strength(value) for value in known)
        return {**result, "preference_strength": next((s for s in strengths if s is not None), 0)}

    def scored(self, predicted: str | None, true: str) -> dict[str, Any]:
        return {
            "predicted_preference": "invalid" if predicted is None else predicted,
            "true_preference": true,
            "task_type": self.name,
        }


def _metadata(extra_info: Mapping[str, Any]) -> Mapping[str, Any]:
    """`metadata`, which the older shape writes as JSON."""
    metadata = extra_info.get("metadata")
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except json.JSONDecodeError:
            return {}
    return metadata if isinstance(metadata, Mapping) else {}


def _strength(value: Any) -> int | None:
    """A strength, or None for what is not one: pandas makes NaN of a missing one."""
    return int(value) if isinstance(value, (int, float, Integral)) and value == value // 1 else None
