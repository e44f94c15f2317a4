"""Reward modules: a name, a template and in-context examples around a task's prompt. No model is called.

module = BaseHelpfulnessPointWiseReward(name="helpfulness", template=PointwiseTrainTemplate, examples=[], llm=None)
module.format(sample=row)     # the text of the prompt
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rm_gallery.core.data.samples import Pair, Row, Sample, conversation_text
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask, Task
from rm_gallery.core.templates import BasePromptTemplate

Judged = Sample | Pair | Row


class _PromptReward(ABC):
    """An adapter over `task_class`.

    Args:
        name: of the module, for messages.
        template: the verdict's fields; its `prompt` where it has one, else the task's. Default: the task's own.
        examples: appended to each prompt, in this order: a text as it is, a labelled `Sample`, `Pair` or row as
            question and verdict.
        llm: kept, and never called.

    Raises:
        ConfigError: `template` is not a `BasePromptTemplate`.
    """

    task_class: ClassVar[type[Task[Any]]]

    def __init__(
        self,
        name: str = "",
        template: type[BasePromptTemplate] | None = None,
        examples: Sequence[str | Judged] | None = None,
        llm: Any = None,
    ) -> None:
        self.name = name or type(self).__name__
        self.template = _with_prompt(self.name, template, self.task_class.template)
        self.examples = list(examples or ())
        self.llm = llm

    def format(self, sample: Judged, enable_thinking: bool = False) -> str:
        """The prompt about `sample`: a `Sample`, a `Pair` or an exported row.

        Args:
            enable_thinking: ask for `<think>…</think>` first; leave it off for a model that reasons by itself.

        Raises:
            DataError: the sample has no query, or not as many responses as the task compares.
        """
        task = self._task(enable_thinking)
        prompt = task.prompt(_row(sample))
        if not self.examples:
            return prompt
        shown = (
            f"## Example {number}\n{self._example(task, example)}"
            for number, example in enumerate(self.examples, start=1)
        )
        return "\n\n".join([prompt, "# Examples", *shown])

    def _evaluate(self, sample: Judged, **options: Any) -> str:
        """The prompt, for a dataset to hand to the policy; there is nothing else to compute here."""
        return self.format(sample=sample, **options)

    def _task(self, enable_thinking: bool = False) -> Task[Any]:
        task = self.task_class(think=enable_thinking)
        task.template = self.template
        return task

    def _example(self, task: Task[Any], example: str | Judged) -> str:
        if isinstance(example, str):
            return example
        row = _row(example)
        return f"{self._question(row)}\n\n# Output\n{task.format(task.truth(row))}"

    @abstractmethod
    def _question(self, row: Row) -> str:
        """The query and the responses of a row, as they stand in an in-context example."""


class BaseListWisePrincipleReward(_PromptReward):
    """Several responses to one query, of which the best is named. Two are compared: A, B or a tie."""

    task_class = PairwiseTask

    def _question(self, row: Row) -> str:
        pair = Pair.from_row(row)
        query = conversation_text(pair.input)
        return f"# Query\n{query}\n\n# Response A\n{pair.response_a}\n\n# Response B\n{pair.response_b}"


class BaseHelpfulnessPairWiseReward(BaseListWisePrincipleReward):
    """Which of two responses is more helpful."""


class BaseHelpfulnessPointWiseReward(_PromptReward):
    """How helpful one response is, from 0 to 4."""

    task_class = PointwiseTask

    def _question(self, row: Row) -> str:
        sample = Sample.from_row(row)
        return f"# Query\n{conversation_text(sample.input)}\n\n# Response\n{sample.response}"


def _row(sample: Judged) -> Row:
    return sample if isinstance(sample, Mapping) else sample.to_row()


def _with_prompt(
    name: str, template: type[BasePromptTemplate] | None, default: type[BasePromptTemplate]
) -> type[BasePromptTemplate]:
    """`template`, with the prompt of `default` where it declares only its fields."""
    if template is None:
        return default
    if not (isinstance(template, type) and issubclass(template, BasePromptTemplate)):
        raise ConfigError(
            f"{name}: the template must be a subclass of BasePromptTemplate, found {template!r}"
        )
    if template.prompt:
        return template
    body = {"prompt": default.prompt, "__annotations__": {"prompt": ClassVar[str]}, "__module__": __name__}
    return type(template.__name__, (template,), body)
