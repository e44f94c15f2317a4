"""What counts as a verdict: one legal value in one tag after the reasoning, and nothing else."""

from __future__ import annotations

import contextlib
import time
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from rm_gallery.core.errors import InvalidVerdict
from rm_gallery.core.templates import (
    BasePromptTemplate,
    MultiDimensionTrainTemplate,
    PairwiseComparisonTemplate,
    PointwiseTrainTemplate,
    extract_preference_from_response,
)

MEGABYTE = "lorem <b> " * 100_000

SCORES = [
    ("<score>4</score>", 4, "the plain verdict"),
    ("<score> 4 </score>", 4, "spaces around it"),
    ("<score>\n4\n</score>", 4, "newlines around it"),
    ("<score>4.0</score>", 4, "a whole number written as a decimal"),
    ("<score>0</score>", 0, "the lowest"),
    ("<SCORE>3</Score>", 3, "tags in any case"),
    ("<think>maybe <score>1</score></think><score>3</score>", 3, "a tag inside the reasoning does not count"),
    ("so it goes</think><score>3</score>", 3, "the chat template had opened the reasoning"),
    ("<think>a</think><think>b</think><score>2</score>", 2, "what follows the last reasoning counts"),
    ("<THINK><score>1</score></THINK><score>2</score>", 2, "reasoning tags in any case"),
    ("I give it <score>2</score>, since it helps.", 2, "text around the tag"),
    ("\x00<score>2</score>\ud800", 2, "odd characters outside the tag"),
    (MEGABYTE + "<score>2</score>", 2, "a megabyte before"),
    ("<score>2</score>" + MEGABYTE, 2, "a megabyte after"),
    ("<think>" + MEGABYTE + "</think><score>2</score>", 2, "a megabyte of reasoning"),
    ("<score>1</score><score>1</score>", None, "two tags, even alike"),
    ("<score>1</score> or <score>4</score>", None, "two tags"),
    ("<think>it is <score>4</score>", None, "the reasoning is not closed"),
    ("<score>4</score><think>wait", None, "a new reasoning is not closed"),
    ("<score>4</score></think>", None, "the verdict lies in the reasoning"),
    ("<think><score>4</score></think>", None, "the only tag lies in the reasoning"),
    ("<score><score>4</score></score>", None, "nested"),
    ("<score><score>4</score>", None, "opened twice"),
    ("<score>4</score></score>", None, "closed twice"),
    ("<score>4", None, "not closed"),
    ("4</score>", None, "not opened"),
    ("</score>4<score>", None, "closed before it is opened"),
    ("<score>3/4</score>", None, "a fraction"),
    ("<score>3 4</score>", None, "two numbers"),
    ("<score>3.5</score>", None, "between two scores"),
    ("<score>4.</score>", None, "half a decimal"),
    ("<score>5</score>", None, "above the scale, and not the best score"),
    ("<score>-1</score>", None, "below the scale, and not 0"),
    ("<score>-0</score>", None, "a sign"),
    ("<score>+3</score>", None, "a sign"),
    ("<score>04</score>", None, "a leading zero"),
    ("<score>1_0</score>", None, "Python's way to write 10"),
    ("<score>4e0</score>", None, "an exponent"),
    ("<score>five</score>", None, "a word"),
    ("<score>four</score>", None, "a word for a legal score"),
    ("<score>True</score>", None, "Python's 1"),
    ("<score>nan</score>", None, "not a number"),
    ("<score>X</score>", None, "the format repeated"),
    ("<score></score>", None, "empty tag"),
    ("<score> </score>", None, "blank tag"),
    ("", None, "empty output"),
    (" \n\t ", None, "blank output"),
    ("4", None, "no tag"),
    ("Score: 4", None, "no tag"),
    ("<score>٣</score>", None, "an Arabic-Indic digit, which int() takes"),
    ("<score>３</score>", None, "a full-width digit, which int() takes"),
    ("<score>²</score>", None, "a superscript"),
    ("<ſcore>4</score>", None, "a long s, which ignoring case takes for an s"),
    ("<score>4\x00</score>", None, "a NUL"),
    ("<score>\ud800</score>", None, "a lone surrogate"),
    ("<score>4\u200b</score>", None, "a zero-width space"),
    ("< score>4</ score>", None, "not the tag that was asked for"),
    ("<score value=4>", None, "an attribute"),
    ("&lt;score&gt;4&lt;/score&gt;", None, "escaped"),
    ("<preference>A</preference>", None, "another task's tag"),
    ("<score>" + MEGABYTE + "</score>", None, "a megabyte inside"),
    ("<score>" + "9" * 1_000_000 + "</score>", None, "a million digits"),
    ("<score>" * 150_000, None, "a megabyte of opened tags"),
    ("<think>" * 150_000 + "<score>4</score>", None, "a megabyte of opened reasoning"),
]

PREFERENCES = [
    ("<preference>A</preference>", "A", "the plain verdict"),
    ("<preference> b </preference>", "B", "any case, spaces"),
    ("<Preference>TIE</PREFERENCE>", "tie", "any case"),
    ("<think>B? <preference>B</preference></think>\n<preference>A</preference>", "A", "not the reasoning's"),
    ("<preference>А</preference>", None, "a Cyrillic А"),
    ("<preference>Ａ</preference>", None, "a full-width A"),
    ("<preference>tıe</preference>", None, "a dotless i"),
    ("<preference>Response A</preference>", None, "more than the letter"),
    ("<preference>A.</preference>", None, "more than the letter"),
    ("<preference>A or B</preference>", None, "two letters"),
    ("<preference>C</preference>", None, "no such response"),
    ("<preference>1</preference>", None, "a number"),
    ("<preference>equal</preference>", None, "a word for a tie"),
    ("<preference>A</preference><preference>A</preference>", None, "two tags"),
    ("<think><preference>A</preference>", None, "the reasoning is not closed"),
    ("A", None, "no tag"),
    ("", None, "empty output"),
]


def _reasons(table: list[tuple]) -> list[str]:
    return [f"{number}-{reason}" for number, (_, _, reason) in enumerate(table)]


@pytest.mark.parametrize(("text", "score", "_reason"), SCORES, ids=_reasons(SCORES))
def test_a_score_is_read_strictly(text: str, score: int | None, _reason: str) -> None:
    started = time.process_time()
    if score is None:
        with pytest.raises(InvalidVerdict) as caught:
            PointwiseTrainTemplate.parse(text)
        assert len(str(caught.value)) < 200, "the message must not repeat a megabyte"
    else:
        assert PointwiseTrainTemplate.parse(text).score == score
    assert time.process_time() - started < 1


@pytest.mark.parametrize(("text", "preference", "_reason"), PREFERENCES, ids=_reasons(PREFERENCES))
def test_a_preference_is_read_strictly(text: str, preference: str | None, _reason: str) -> None:
    if preference is None:
        with pytest.raises(InvalidVerdict):
            extract_preference_from_response(text)
    else:
        assert extract_preference_from_response(text) == preference


@given(st.text())
def test_parse_raises_nothing_but_invalid_verdict(text: str) -> None:
    for template in (PointwiseTrainTemplate, PairwiseComparisonTemplate, MultiDimensionTrainTemplate):
        with contextlib.suppress(InvalidVerdict):
            template.parse(text)


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_parse_of_print_is_the_verdict(a: int, b: int, c: int) -> None:
    several = MultiDimensionTrainTemplate(helpfulness=a, correctness=b, relevance=c)
    assert MultiDimensionTrainTemplate.parse(several.to_text()) == several
    assert PointwiseTrainTemplate.parse(PointwiseTrainTemplate(score=a).to_text()).score == a


def test_reasoning_is_printed_before_the_verdict_and_not_read_back() -> None:
    text = PairwiseComparisonTemplate(think="because", preference="A").to_text()
    assert text == "<think>because</think>\n<preference>A</preference>"
    assert PairwiseComparisonTemplate.parse(text).preference == "A"


def test_one_of_several_scores_missing_is_invalid() -> None:
    with pytest.raises(InvalidVerdict, match="relevance"):
        MultiDimensionTrainTemplate.parse("<helpfulness>1</helpfulness><correctness>1</correctness>")


class Stars(BasePromptTemplate):
    prompt = "Rate {title}.\n{output_requirement}"

    stars: int = Field(description="how good the book is")
    tone: Literal["dry", "warm"] = Field(description="its tone")


def test_an_unbounded_field_never_holds_a_number_that_was_not_written() -> None:
    with pytest.raises(InvalidVerdict, match="25 digits"):
        Stars.parse(f"<stars>{'7' * 25}</stars><tone>dry</tone>")
    assert Stars.parse("<stars>-12</stars><tone>WARM</tone>") == Stars(stars=-12, tone="warm")


def test_a_template_of_ones_own_asks_for_what_it_reads() -> None:
    prompt = Stars.format(title="{tone} and {x}")
    assert prompt.startswith("Rate {tone} and {x}.\n<stars>X</stars>\n<tone>X</tone>\n")
    assert "dry or warm: its tone" in prompt
    assert "<think>" not in prompt
    assert "<think>" in Stars.format(title="", enable_thinking=True)
    with pytest.raises(KeyError):
        Stars.format()


def test_templates_are_immutable_and_closed() -> None:
    with pytest.raises(ValueError):
        PointwiseTrainTemplate(score=5)
    with pytest.raises(ValueError):
        PointwiseTrainTemplate(score=1, other=2)
    with pytest.raises(ValueError):
        PointwiseTrainTemplate(score=1).score = 2
