"""Two responses, one preference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rm_gallery.core.data.samples import Pair, Row, conversation_text
from rm_gallery.core.errors import DataError
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.templates import BasePromptTemplate, PairwiseComparisonTemplate

_LEGAL = ("A", "B", "tie")


class PairwiseTask(Task[str]):
    """`A`, `B` or `tie`; the reward is 1 for the right preference."""

    name: ClassVar[str] = "pairwise"
    template: type[BasePromptTemplate] = PairwiseComparisonTemplate
    default_reward: ClassVar[str] = "preference"
    default_instruction: ClassVar[str] = "Which of the two responses to the query is more helpful?"

    def prompt(self, row: Row) -> str:
        # the prompt needs no label, so a pair to be judged may come without one
        pair = Pair.from_row({"preferred": "tie", **row})
        return self.template.format(
            enable_thinking=self.think,
            task=self.instruction,
            query=conversation_text(pair.input),
            response_a=pair.response_a,
            response_b=pair.response_b,
        )

    def verdicts(self) -> tuple[str, ...]:
        return _LEGAL

    def parse(self, text: str) -> str:
        return str(getattr(self.template.parse(text), "preference"))  # noqa: B009 - a subclass's field

    def format(self, verdict: str) -> str:
        return self.template.model_validate({"preference": verdict}).to_text()

    def truth(self, row: Row) -> str:
        return Pair.from_row(row).preferred

    def check_truth(self, value: Any) -> str:
        if isinstance(value, Mapping):
            value = value.get("preferred", value.get("preference"))
        if value not in _LEGAL:
            raise DataError(f"the preferred response is {value!r}, expected 'A', 'B' or 'tie'")
        return str(value)

    def ground_truth(self, ground_truth: Any, extra_info: dict[str, Any]) -> Any:
        if ground_truth is None or ground_truth == "":
            return (extra_info.get("metadata") or {}).get("preferred")
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
        sources = (ground_truth, (extra_info or {}).get("metadata"))
        known = [
            s["preference_strength"] for s in sources if isinstance(s, Mapping) and "preference_strength" in s
        ]
        return {**result, "preference_strength": int(known[0] or 0) if known else 0}

    def scored(self, predicted: str | None, true: str) -> dict[str, Any]:
        return {
            "predicted_preference": "invalid" if predicted is None else predicted,
            "true_preference": true,
            "task_type": self.name,
        }
