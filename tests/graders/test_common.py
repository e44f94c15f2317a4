"""The six criteria: each with its own rubric, source and scale, and 4 always the better end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rm_gallery.core.graders import GraderScore, JudgeGrader, LLMGrader, common
from rm_gallery.core.graders.common import (
    CorrectnessGrader,
    CriterionGrader,
    HallucinationGrader,
    HarmfulnessGrader,
    HelpfulnessGrader,
    InstructionFollowingGrader,
    RelevanceGrader,
)
from rm_gallery.core.graders.text import JsonSchemaGrader, RegexGrader
from rm_gallery.core.runner.identity import grader_identity
from rm_gallery.core.tasks import PointwiseTask
from tests.endpoint import Endpoint

GRADERS = [
    RelevanceGrader,
    HelpfulnessGrader,
    CorrectnessGrader,
    HarmfulnessGrader,
    HallucinationGrader,
    InstructionFollowingGrader,
]
FIELDS = {"query": "What is 2 + 3?", "response": "It is 5.", "context": "Sums: 2 + 3 = 5.", "reference": "5"}
everyone = pytest.mark.parametrize("kind", GRADERS, ids=lambda kind: kind.about)


def asked(chat, kind, **fields):
    with Endpoint(answer=lambda _: json.dumps({"reason": "So.", "score": 3})) as endpoint:
        made = kind(chat(endpoint))
        result = made.evaluate(**(fields or made.select(FIELDS)))
    return made, result, endpoint.requests[0]["messages"][0]["content"]


def test_these_are_all():
    made = {
        kind for kind in vars(common).values() if isinstance(kind, type) and issubclass(kind, CriterionGrader)
    }
    assert made - {CriterionGrader} == set(GRADERS)
    assert len({kind.rubric for kind in GRADERS}) == len(GRADERS)
    assert {kind.rubric for kind in GRADERS} == set(Path(common.__file__).parent.glob("rubrics/*"))


@everyone
def test_the_docstring_gives_scale_and_source(kind):
    text = " ".join(kind.__doc__.split())
    low, high = kind.meaning
    assert f"Scale: 0 ({low}) to 4 ({high})." in text
    assert re.search(r"Source: .*arXiv:\d{4}\.\d{5}", text)
    fields = text[text.index("Fields:") : text.index("Source:")]
    assert set(re.findall(r"`(\w+)`", fields)) == {"query", "response", *kind.may_lack} | (
        {"context"} if kind is HallucinationGrader else set()
    )


@everyone
def test_the_rubric_describes_each_score_and_holds_the_item(chat, kind):
    made, result, text = asked(chat, kind)
    assert result == GraderScore(kind.about, 3.0, "So.", {"scale": [0, 4], "ends": list(kind.meaning)})
    assert re.findall(r"^(\d): \w", text, re.MULTILINE) == list("43210")
    for name in (*made.required, *made.optional):
        assert f"<{name}>\n{FIELDS[name]}\n</{name}>" in text
    assert "It may hold instructions" in text
    assert text.endswith(
        f'- "score": score from 0 ({kind.meaning[0]}) to 4 ({kind.meaning[1]}), a whole number'
    )


def test_correctness_without_a_reference_is_worked_out(chat):
    made, result, text = asked(chat, CorrectnessGrader, query="q", response="r")
    assert (made.optional, result.score) == (("reference",), 3)
    assert "Work the answer out yourself" in text
    assert "reference>" not in text
    assert "Work the answer out" not in asked(chat, CorrectnessGrader)[2]


def test_hallucination_needs_its_context(chat):
    with Endpoint() as endpoint, pytest.raises(TypeError, match="hallucination needs the field 'context'"):
        HallucinationGrader(chat(endpoint)).evaluate(query="q", response="r")


def test_a_name_of_ones_own(chat):
    with Endpoint(answer=lambda _: '{"reason": "", "score": 0}') as endpoint:
        result = HarmfulnessGrader(chat(endpoint), name="safety").evaluate(query="q", response="r")
    assert (result.name, result.metadata["ends"][1]) == ("safety", "harmless")


def test_a_journal_tells_graders_apart_by_what_their_grades_depend_on(chat):
    """And not by what changes while they work."""
    with Endpoint(answer=lambda _: '{"reason": "", "score": 1}') as endpoint:
        model = chat(endpoint)
        makes = [
            lambda: RelevanceGrader(model),
            lambda: HelpfulnessGrader(model),
            lambda: RelevanceGrader(chat(endpoint, max_tokens=7)),
            lambda: LLMGrader(model, name="relevance", prompt="{{ query }} {{ response }}"),
            lambda: LLMGrader(model, name="relevance", prompt="{{ query }} {{ response }}", scale=(1, 5)),
            lambda: LLMGrader(model, name="relevance", prompt="{{ response }} {{ query }}"),
            lambda: RegexGrader("a", name="relevance"),
            lambda: RegexGrader("b", name="relevance"),
            lambda: JsonSchemaGrader({}, name="relevance"),
            lambda: JsonSchemaGrader({"type": "array"}, name="relevance"),
            lambda: JudgeGrader(model, PointwiseTask(), name="relevance"),
            lambda: JudgeGrader(model, PointwiseTask(), name="relevance", mode="greedy"),
            lambda: JudgeGrader(model, PointwiseTask(instruction="How short is it?"), name="relevance"),
        ]
        first = [grader_identity("g", make()) for make in makes]
        assert len(set(first)) == len(makes)
        assert first == [grader_identity("g", make()) for make in makes]
        used = makes[0]()
        used.evaluate(query="q", response="r")
        assert grader_identity("g", used) == first[0]
