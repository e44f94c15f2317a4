"""Reward modules build prompts from samples and rows, and never call a model."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from rm_gallery.core.templates import BasePromptTemplate, PairwiseComparisonTemplate, PointwiseTrainTemplate
from rm_gallery.gallery.rm.alignment.base import (
    BaseHelpfulnessPairWiseReward,
    BaseHelpfulnessPointWiseReward,
    BaseListWisePrincipleReward,
)
from tests.tasks.rows import older_shape, pair, sample


class NoCalls:
    """A model that must not be called."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the model was asked for {name}")


def pointwise(**options: Any) -> BaseHelpfulnessPointWiseReward:
    given = {"name": "helpfulness", "template": PointwiseTrainTemplate, "examples": [], "llm": NoCalls()}
    return BaseHelpfulnessPointWiseReward(**{**given, **options})


def pairwise(**options: Any) -> BaseHelpfulnessPairWiseReward:
    given = {"name": "helpfulness", "template": PairwiseComparisonTemplate, "examples": [], "llm": NoCalls()}
    return BaseHelpfulnessPairWiseReward(**{**given, **options})


def test_the_prompt_is_the_tasks() -> None:
    row = sample().to_row()
    for judged in (sample(), row, older_shape(row)):
        assert pointwise().format(sample=judged) == PointwiseTask().prompt(row)
    row = pair().to_row()
    for judged in (pair(), row, older_shape(row)):
        assert pairwise().format(sample=judged) == PairwiseTask().prompt(row)
    thinking = pairwise().format(sample=pair(), enable_thinking=True)
    assert thinking == PairwiseTask(think=True).prompt(row)
    assert issubclass(BaseHelpfulnessPairWiseReward, BaseListWisePrincipleReward)


def test_evaluating_gives_the_prompt_without_a_model() -> None:
    assert pairwise()._evaluate(pair()) == pairwise().format(sample=pair())
    assert pointwise()._evaluate(sample=sample()) == pointwise().format(sample=sample())
    assert pointwise(llm=None).llm is None


def test_examples_are_appended_with_their_verdicts() -> None:
    text = pairwise(examples=[pair().swap(), "Mind the facts."]).format(sample=pair())
    assert text.startswith(pairwise().format(sample=pair()) + "\n\n# Examples\n\n## Example 1\n# Query\n")
    assert "# Response A\nDunno." in text
    assert text.endswith("# Output\n<preference>B</preference>\n\n## Example 2\nMind the facts.")
    with pytest.raises(DataError):
        pointwise(examples=[sample(labels={})]).format(sample=sample())


class Own(BasePromptTemplate):
    score: int = Field(ge=0, le=4, description="usefulness")


class OwnPrompt(Own):
    prompt = "Rate: {response}\n{output_requirement}"


def test_a_template_of_ones_own() -> None:
    text = pointwise(template=Own).format(sample=sample())
    assert "# Response\nFibre." in text
    assert text.endswith("<score>X</score>\nwhere X is the usefulness")
    assert pointwise(template=OwnPrompt).format(sample=sample()).startswith("Rate: Fibre.\n<score>")


def test_what_cannot_be_asked_is_refused() -> None:
    class Plain(BaseModel):
        score: int

    with pytest.raises(ConfigError, match="helpfulness: the template must be a subclass"):
        pointwise(template=Plain)
    with pytest.raises(DataError, match="two responses"):
        pairwise().format(sample=sample())
