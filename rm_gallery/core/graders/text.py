"""Graders without a model: a rule over the response, whose work a library does. They need the extra `graders`.

Each gives 1 where the rule holds and 0 where it does not, `SimilarityGrader` anything between. An item whose fields are
no texts is a `GraderError`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.graders.base import BaseGrader
from rm_gallery.core.graders.fields import text
from rm_gallery.core.graders.result import GraderResult, GraderScore
from rm_gallery.core.models.require import require

SECONDS = 1.0
"""How long one response may keep a pattern busy."""

_DEEP = "the response is JSON nested too deeply to be checked"

Measure = Literal["indel", "levenshtein", "jaro_winkler", "token_sort", "token_set"]


class ExactMatchGrader(BaseGrader):
    """Whether the response is the reference, white space around both aside. Scale: 0 or 1.

    Args:
        ignore_case: compare by Unicode's case folding.
    """

    required = ("response", "reference")

    def __init__(self, *, name: str = "exact_match", ignore_case: bool = False) -> None:
        self.name = name
        self.ignore_case = ignore_case

    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        response, reference = (text(fields[name], name).strip() for name in self.required)
        if self.ignore_case:
            response, reference = response.casefold(), reference.casefold()
        return _verdict(self.name, response == reference, "the same text", "another text")


class RegexGrader(BaseGrader):
    """Whether the pattern is found in the response. Scale: 0 or 1.

    The syntax is that of the `regex` library, which takes all of `re`'s. A response that keeps the pattern busy for a
    second is a `GraderError`.

    Args:
        pattern: flags stand in it: `(?i)`.
        whole: the whole response must match.

    Raises:
        ConfigError: it is no pattern.
        MissingDependency: the extra `graders` is not installed.
    """

    required = ("response",)

    def __init__(self, pattern: str, *, name: str = "regex", whole: bool = False) -> None:
        require("graders", "regex")
        import regex

        self.name, self.pattern, self.whole = name, pattern, whole
        try:
            compiled = regex.compile(pattern)
        except regex.error as error:
            raise ConfigError(f"grader {name}: {pattern!r} is no pattern: {error}") from None
        self._find = compiled.fullmatch if whole else compiled.search

    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        response = text(fields["response"], "response")
        try:
            # in a thread: the library lets others run while it searches
            found = await asyncio.to_thread(self._find, response, timeout=SECONDS)
        except TimeoutError:
            return self.error(f"the pattern takes longer than {SECONDS:g} s on this response", kind="timeout")
        return _verdict(self.name, found is not None, "the pattern is found", "the pattern is not found")


class JsonSchemaGrader(BaseGrader):
    """Whether the response is JSON of the schema, and nothing but JSON. Scale: 0 or 1; the reason says what is wrong.

    References to other documents are not followed.

    Args:
        schema: of any draft that the library knows; `$schema` says which, else the newest.

    Raises:
        ConfigError: it is no schema.
        MissingDependency: the extra `graders` is not installed.
    """

    required = ("response",)

    def __init__(self, schema: Mapping[str, Any], *, name: str = "json_schema") -> None:
        require("graders", "jsonschema", "referencing")
        import jsonschema
        from referencing import Registry

        self.name, self.schema = name, schema
        kind = jsonschema.validators.validator_for(schema)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ConfigError(f"grader {name}: no JSON schema: {error.json_path}: {error.message}") from None
        # an empty registry retrieves nothing; the default one would ask the network
        self._validator = kind(schema, registry=Registry())

    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        response = text(fields["response"], "response")
        try:
            content = json.loads(response, parse_constant=_no_json)
        except ValueError as error:
            return GraderScore(self.name, 0.0, f"the response is no JSON: {error}")
        except RecursionError:
            return self.error(_DEEP, kind="data")
        try:
            wrong = best_match(self._validator.iter_errors(content))
        except Unresolvable as error:
            raise ConfigError(f"grader {self.name}: the schema refers to {error}") from None
        except RecursionError:
            return self.error(_DEEP, kind="data")
        if wrong is None:
            return GraderScore(self.name, 1.0, "JSON of the schema")
        return GraderScore(self.name, 0.0, f"{wrong.json_path}: {wrong.message[:200]}")


class SimilarityGrader(BaseGrader):
    """How alike the response and the reference are. Scale: 0 to 1, the same text.

    Args:
        measure: `indel` (2 times the longest common subsequence over both lengths) and `levenshtein` by characters;
            `jaro_winkler`, for names; `token_sort` is `indel` of the sorted words, `token_set` disregards repeated
            words and those that only one text has in excess. As RapidFuzz defines them.
        ignore_case: also disregard punctuation and white space at the ends.

    Raises:
        ConfigError: there is no such measure.
        MissingDependency: the extra `graders` is not installed.
    """

    required = ("response", "reference")

    def __init__(
        self, measure: Measure = "indel", *, name: str = "similarity", ignore_case: bool = False
    ) -> None:
        require("graders", "rapidfuzz")
        from rapidfuzz import distance, fuzz, utils

        measures: dict[str, Callable[..., float]] = {
            "indel": distance.Indel.normalized_similarity,
            "levenshtein": distance.Levenshtein.normalized_similarity,
            "jaro_winkler": distance.JaroWinkler.normalized_similarity,
            "token_sort": lambda a, b, **how: fuzz.token_sort_ratio(a, b, **how) / 100,
            "token_set": lambda a, b, **how: fuzz.token_set_ratio(a, b, **how) / 100,
        }
        if measure not in measures:
            raise ConfigError(
                f"grader {name}: measure is {measure!r}; there are {', '.join(get_args(Measure))}"
            )
        self.name = name
        self.measure = measure
        self.ignore_case = ignore_case
        self._measure = measures[measure]
        self._processor = utils.default_process if ignore_case else None

    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        response, reference = (text(fields[name], name) for name in self.required)
        same = response == reference  # also where neither holds a word
        score = 1.0 if same else self._measure(response, reference, processor=self._processor)
        return GraderScore(self.name, score, metadata={"measure": self.measure})


def _verdict(name: str, holds: bool, yes: str, no: str) -> GraderScore:
    return GraderScore(name, float(holds), yes if holds else no)


def _no_json(constant: str) -> Any:
    """`NaN` and `Infinity`, which Python reads."""
    raise ValueError(f"{constant} is no JSON value")
