"""A typed result: what is asked for is what is read."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from rm_gallery.core.errors import ConfigError, InvalidVerdict
from rm_gallery.core.graders.formats import JsonFormat, TagFormat, score_model


class Mark(BaseModel):
    reason: str = ""
    score: float = Field(ge=-1, le=1, description="mark from -1 to 1")
    kind: Literal["good", "bad"] = "bad"
    errors: int = 0


FORMATS = [JsonFormat(Mark), TagFormat(Mark)]
# a tag keeps its text but for white space at its ends, and none of the tags may stand in it
plain = st.text(alphabet=st.characters(exclude_characters="<>", exclude_categories=["Cs"])).map(str.strip)
marks = st.builds(
    Mark,
    reason=plain,
    score=st.floats(-1, 1),
    kind=st.sampled_from(["good", "bad"]),
    errors=st.integers(-(10**9), 10**9),
)


@pytest.mark.parametrize("format", FORMATS, ids=["json", "tags"])
@given(mark=marks)
def test_what_is_printed_is_read_back(format, mark):
    assert format.parse(format.format(mark)) == mark


@pytest.mark.parametrize("format", FORMATS, ids=["json", "tags"])
def test_the_instructions_name_every_field_with_its_meaning(format):
    assert all(name in format.instructions for name in Mark.model_fields)
    assert "mark from -1 to 1" in format.instructions


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing was written"),
        ("<score>2</score>", "off the scale"),
        ("<score>0.5</score><score>0.5</score>", "two scores"),
        ("<score>half</score>", "no number"),
        ("<score>nan</score>", "no number either"),
        ("<score>1_0</score>", "Python's own way to write 10"),
        ("<score>0.5</score><kind>fair</kind>", "no legal value"),
        ("<score>0.5</score><reason>good", "a tag that is not closed"),
        ("<think><score>0.5</score>", "reasoning that does not end"),
        ("0.5", "no tag"),
    ],
)
def test_tags_are_read_strictly(text, why):
    with pytest.raises(InvalidVerdict):
        TagFormat(Mark).parse(text)


def test_fields_with_a_default_may_be_left_out_and_reasoning_goes_before():
    found = TagFormat(Mark).parse("<think>a <reason> tag in it</think>\nSo: <SCORE> 0.25 </SCORE>")
    assert found == Mark(score=0.25)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"score": 2}', '{"score": "x"}', "<score>1</score>", '{"score": NaN}']
)
def test_json_is_read_strictly(text):
    with pytest.raises(InvalidVerdict, match="no Mark"):
        JsonFormat(Mark).parse(text)


def test_a_field_that_no_tag_can_hold_is_refused():
    class Several(BaseModel):
        score: int
        parts: list[int]

    with pytest.raises(ConfigError, match=r"Several\.parts cannot be written in a tag"):
        TagFormat(Several)
    JsonFormat(Several)


@pytest.mark.parametrize(("scale", "kind"), [((0, 4), int), ((0.0, 1.0), float), ((-2, 2), int)])
def test_the_result_by_default_is_a_reason_and_a_score_of_the_scale(scale, kind):
    model = score_model(scale, ("bad", "good"))
    assert list(model.model_fields) == ["reason", "score"]
    assert model.model_fields["score"].annotation is kind
    low, high = scale
    assert model(score=low).reason == ""
    for beyond in (low - 1, high + 1):
        with pytest.raises(ValueError):
            model(score=beyond)
    assert "(bad)" in TagFormat(model).instructions
