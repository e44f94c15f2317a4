"""Rules over text: what the libraries say, on the scale that is promised."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.graders import GraderError, GraderScore
from rm_gallery.core.graders.text import (
    ExactMatchGrader,
    JsonSchemaGrader,
    RegexGrader,
    SimilarityGrader,
)

texts = st.text(max_size=30)
MEASURES = ["indel", "levenshtein", "jaro_winkler", "token_sort", "token_set"]


@given(texts, texts)
def test_a_match_is_equality_up_to_white_space_around(response, reference):
    grader = ExactMatchGrader()
    assert grader.evaluate(response=response, reference=reference).score == (
        response.strip() == reference.strip()
    )
    assert grader.evaluate(response=f" {response}\n", reference=response).score == 1


def test_a_match_may_disregard_case():
    assert ExactMatchGrader(ignore_case=True).evaluate(response="STRASSE", reference="straße").score == 1
    assert ExactMatchGrader().evaluate(response="Yes", reference="yes").score == 0


@given(st.text(alphabet="ab1 ", max_size=12), st.sampled_from([r"\d", "a+b", "^a", "b$", "(?i)A", "[^ ]+"]))
def test_a_pattern_finds_what_re_finds(response, pattern):
    assert RegexGrader(pattern).evaluate(response=response).score == bool(re.search(pattern, response))
    whole = RegexGrader(pattern, whole=True).evaluate(response=response)
    assert whole.score == bool(re.fullmatch(pattern, response))


def test_a_response_that_keeps_a_pattern_busy_is_an_error():
    start = time.monotonic()
    result = RegexGrader(r"(a|aa)+$").evaluate(response="a" * 60 + "b")
    assert (type(result), result.kind) == (GraderError, "timeout")
    assert time.monotonic() - start < 3


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "number", "maximum": 60}},
    "required": ["city"],
}


@pytest.mark.parametrize(
    ("response", "score", "reason"),
    [
        ('{"city": "Bern", "degrees": 12}', 1, "JSON of the schema"),
        ("{}", 0, "$: 'city' is a required property"),
        ('{"city": "Bern", "degrees": 99}', 0, "$.degrees: 99 is greater than the maximum of 60"),
        ('Here: {"city": "Bern"}', 0, "no JSON"),
        ('{"city": "Bern", "degrees": NaN}', 0, "NaN is no JSON value"),
        ("", 0, "no JSON"),
    ],
)
def test_json_of_a_schema(response, score, reason):
    result = JsonSchemaGrader(SCHEMA).evaluate(response=response)
    assert result.score == score
    assert reason in result.reason


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=3))
def test_what_fits_a_schema_fits_in_any_spelling(content):
    grader = JsonSchemaGrader({"type": "object", "additionalProperties": {"type": "integer"}})
    for indent in (None, 2):
        assert grader.evaluate(response=json.dumps(content, indent=indent)).score == 1


@pytest.mark.parametrize("response", ["[" * 100_000, "[" * 900 + "]" * 900])
def test_json_that_is_nested_too_deeply_is_an_error(response):
    grader = JsonSchemaGrader({"type": "array", "items": {"$ref": "#"}})
    assert grader.evaluate(response=response).kind == "data"


def test_a_schema_is_checked_and_refers_to_nothing_outside():
    with pytest.raises(ConfigError, match=r"no JSON schema: \$\.type"):
        JsonSchemaGrader({"type": "strin"})
    with pytest.raises(ConfigError, match="the schema refers to"):
        JsonSchemaGrader({"$ref": "http://127.0.0.1:1/schema"}).evaluate(response="{}")


@pytest.mark.parametrize("measure", MEASURES)
@given(texts, texts)
def test_a_similarity_is_a_share_and_symmetric(measure, one, other):
    grader = SimilarityGrader(measure)
    result = grader.evaluate(response=one, reference=other)
    assert 0 <= result.score <= 1
    assert result.score == pytest.approx(grader.evaluate(response=other, reference=one).score)
    assert grader.evaluate(response=one, reference=one).score == 1


def test_similarities_are_rapidfuzzs():
    pair = {"response": "the cat sat", "reference": "sat the cat!"}
    assert SimilarityGrader().evaluate(**pair).score == pytest.approx(fuzz.ratio(*pair.values()) / 100)
    assert SimilarityGrader("token_sort", ignore_case=True).evaluate(**pair).score == 1
    with pytest.raises(ConfigError, match="measure is 'cosine'; there are indel, levenshtein"):
        SimilarityGrader("cosine")


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="is no pattern"):
        RegexGrader("(")


@pytest.mark.parametrize("grader", [ExactMatchGrader(), SimilarityGrader()])
def test_what_is_no_text_is_an_error(grader):
    assert grader.evaluate(response="a", reference=None).kind == "data"
    assert isinstance(grader.evaluate(response="a", reference="a"), GraderScore)
