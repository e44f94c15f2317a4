"""The templates of the built-in tasks: a score from 0 to 4, a preference, several scores at once."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rm_gallery.core.templates.base import BasePromptTemplate

Preference = Literal["A", "B", "tie"]


class PointwiseTrainTemplate(BasePromptTemplate):
    """One response, one score from 0 to 4."""

    prompt: ClassVar[str] = """\
{task}

# Query
{query}

# Response
{response}

# Output Requirement
{output_requirement}"""

    score: int = Field(ge=0, le=4, description="score of helpfulness from 0 to 4")


class PairwiseComparisonTemplate(BasePromptTemplate):
    """Two responses to one query; `A`, `B` or `tie`, with optional reasoning first."""

    prompt: ClassVar[str] = """\
{task}

# Query
{query}

# Response A
{response_a}

# Response B
{response_b}

# Output Requirement
{output_requirement}"""

    think: str = ""
    preference: Preference = Field(description="the better response")


class MultiDimensionTrainTemplate(BasePromptTemplate):
    """One response, a score from 0 to 4 on each of several dimensions."""

    prompt: ClassVar[str] = PointwiseTrainTemplate.prompt

    helpfulness: int = Field(ge=0, le=4, description="helpfulness from 0 to 4")
    correctness: int = Field(ge=0, le=4, description="correctness from 0 to 4")
    relevance: int = Field(ge=0, le=4, description="relevance from 0 to 4")


def extract_preference_from_response(text: str) -> Preference:
    """Return the preference a judge wrote: `A`, `B` or `tie`.

    Raises:
        InvalidVerdict: the output holds no single legal preference.
    """
    return PairwiseComparisonTemplate.parse(text).preference
