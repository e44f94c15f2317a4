"""Graders of common criteria. Each has its rubric in a file of its own, `rubrics/NAME.jinja`.

All scores go from 0 to 4, as HelpSteer2's do, and 4 is always the better end, so that they can be averaged, maximised
and used as rewards: a `HarmfulnessGrader` gives 4 to a harmless response. `metadata["ends"]` says what 0 and 4 mean.

grader = RelevanceGrader(model=OpenAIChatModel("judge", "http://127.0.0.1:8000/v1"))
result = await grader.aevaluate(query="What is 2 + 3?", response="It is 5.")
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rm_gallery.core.graders.llm import LLMGrader
from rm_gallery.core.models.openai_chat import OpenAIChatModel

_RUBRICS = Path(__file__).parent / "rubrics"


class CriterionGrader(LLMGrader):
    """One criterion with its rubric.

    Args:
        model: the judge. A saved one is asked its own task's question instead (`LLMGrader`).
        name: by default the criterion.

    Attributes:
        rubric: the file of the prompt; a subclass may name another one.
    """

    rubric: ClassVar[Path]
    about: ClassVar[str]
    meaning: ClassVar[tuple[str, str]]
    may_lack: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: OpenAIChatModel, *, name: str | None = None) -> None:
        super().__init__(
            model,
            name=name or self.about,
            prompt=self.rubric,
            scale=(0, 4),
            optional=self.may_lack,
            criterion=self.about,
            ends=self.meaning,
        )


class RelevanceGrader(CriterionGrader):
    """Whether the response addresses what the query asks.

    Scale: 0 (has nothing to do with the query) to 4 (addresses all of the query and nothing else).
    Fields: `query`, `response`.
    Source: answer relevance of Es et al., "RAGAS: Automated Evaluation of Retrieval Augmented Generation",
    arXiv:2309.15217: to the point, complete, nothing redundant, without regard to truth.
    """

    rubric = _RUBRICS / "relevance.jinja"
    about = "relevance"
    meaning = ("has nothing to do with the query", "addresses all of the query and nothing else")


class HelpfulnessGrader(CriterionGrader):
    """How far the response gets the person who asked.

    Scale: 0 (no help) to 4 (all that could be wanted).
    Fields: `query`, `response`.
    Source: the attribute helpfulness of Wang et al., "HelpSteer2", arXiv:2406.08673, and of HelpSteer before it,
    arXiv:2311.09528.
    """

    rubric = _RUBRICS / "helpfulness.jinja"
    about = "helpfulness"
    meaning = ("no help", "all that could be wanted")


class CorrectnessGrader(CriterionGrader):
    """Whether what the response states is right.

    Scale: 0 (wrong throughout) to 4 (correct and complete).
    Fields: `query`, `response`, and `reference`, a right answer; without one the judge works it out itself.
    Source: the attribute correctness of HelpSteer, arXiv:2311.09528; the reference as in the reference-guided grading
    of Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", arXiv:2306.05685.
    """

    rubric = _RUBRICS / "correctness.jinja"
    about = "correctness"
    meaning = ("wrong throughout", "correct and complete")
    may_lack = ("reference",)


class HarmfulnessGrader(CriterionGrader):
    """Whether the response may do harm.

    Scale: 0 (severely harmful) to 4 (harmless).
    Fields: `query`, `response`.
    Source: the kinds of harm follow Ji et al., "BeaverTails", arXiv:2307.04657, and the response is judged apart from
    its usefulness, as there.
    """

    rubric = _RUBRICS / "harmfulness.jinja"
    about = "harmfulness"
    meaning = ("severely harmful", "harmless")


class HallucinationGrader(CriterionGrader):
    """Whether the response keeps to the context that it was to be based on.

    Scale: 0 (the main point is invented) to 4 (no hallucination).
    Fields: `query`, `response`, `context`.
    Source: intrinsic and extrinsic hallucination of Ji et al., "Survey of Hallucination in Natural Language
    Generation", arXiv:2202.03629; claim by claim as faithfulness in RAGAS, arXiv:2309.15217.
    """

    rubric = _RUBRICS / "hallucination.jinja"
    about = "hallucination"
    meaning = ("the main point is invented", "no hallucination")


class InstructionFollowingGrader(CriterionGrader):
    """Whether the response does what it was told.

    Scale: 0 (does not do what was asked) to 4 (follows every instruction).
    Fields: `query`, with a system turn where there was one, and `response`.
    Source: instructions taken apart and checked one by one as in Qin et al., "InFoBench", arXiv:2401.03601; the kinds
    of conditions are those of Zhou et al., "Instruction-Following Evaluation for Large Language Models",
    arXiv:2311.07911.
    """

    rubric = _RUBRICS / "instruction_following.jinja"
    about = "instruction_following"
    meaning = ("does not do what was asked", "follows every instruction")
