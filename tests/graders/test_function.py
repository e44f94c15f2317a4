"""One's own function as a grader: numbers and results, or the reason why not."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import numpy as np
import pytest

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders import FunctionGrader, GraderError, GraderRank, GraderScore
from rm_gallery.core.models import ChatError
from tests.endpoint import Endpoint


def length(response, limit=10):
    return len(response) / limit


async def awaited(response):
    await asyncio.sleep(0)
    return len(response)


class Callable:
    async def __call__(self, response):
        return 1


def test_fields_are_the_functions_parameters():
    made = FunctionGrader(length)
    assert (made.name, made.required, made.optional) == ("length", ("response",), ("limit",))
    assert made.evaluate(response="abc") == GraderScore("length", 0.3)
    assert made.evaluate(response="abc", limit=3).score == 1.0
    assert made.select({"query": "q", "response": "r"}) == {"response": "r"}
    with pytest.raises(TypeError, match="needs the field 'response'"):
        made.evaluate(limit=3)
    with pytest.raises(TypeError, match=r"no field 'limits'.*Did you mean 'limit'"):
        made.evaluate(response="r", limits=3)
    everything = FunctionGrader(lambda **fields: len(fields), name="count")
    assert (everything.evaluate(a=1, b=2).score, everything.optional) == (2.0, None)


@pytest.mark.parametrize(
    "function", [awaited, Callable(), lambda response: awaited(response)], ids=["async", "object", "hands on"]
)
def test_a_function_may_be_awaited(function):
    assert isinstance(FunctionGrader(function, name="f").evaluate(response="a"), GraderScore)


@pytest.mark.parametrize(
    ("value", "score"), [(1, 1.0), (True, 1.0), (0.5, 0.5), (np.float32(0.5), 0.5), (np.int64(-3), -3.0)]
)
def test_numbers_are_scores(value, score):
    assert FunctionGrader(lambda: value, name="f").evaluate() == GraderScore("f", score)


@pytest.mark.parametrize("value", [None, "3", [1], math.nan, math.inf, np.zeros(2), object()], ids=repr)
def test_what_is_no_number_is_an_error(value):
    result = FunctionGrader(lambda: value, name="f").evaluate()
    assert (type(result), result.kind) == (GraderError, "function")


@pytest.mark.parametrize("result", [GraderScore("a", 1), GraderRank("a", (2, 1)), GraderError("a", "no")])
def test_results_are_handed_on(result):
    assert FunctionGrader(lambda: result, name="f").evaluate() == result


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ZeroDivisionError("by zero"), "function", "ZeroDivisionError: by zero"),
        (TypeError("no"), "function", "TypeError: no"),
        (ConfigError("no"), "function", "ConfigError: no"),
        (DataError("an empty row"), "data", "an empty row"),
        (ChatError("gone", kind="timeout"), "timeout", "gone"),
    ],
)
def test_what_it_raises_is_an_error_with_its_cause(error, kind, said):
    def raises():
        raise error

    assert FunctionGrader(raises).evaluate() == GraderError(
        "raises", said, {"kind": kind, **({"attempts": 1} if kind == "timeout" else {})}
    )


def test_functions_that_wait_do_not_hold_each_other_up():
    together = threading.Barrier(3)

    def waits():
        together.wait(timeout=5)
        return 1

    async def three():
        return await asyncio.gather(*(FunctionGrader(waits).aevaluate() for _ in range(3)))

    start = time.monotonic()
    assert [type(result) for result in asyncio.run(three())] == [GraderScore] * 3
    assert time.monotonic() - start < 5


def test_fields_that_have_no_name_are_refused():
    with pytest.raises(ConfigError, match="fields are given by name, which 'args' does not take"):
        FunctionGrader(lambda *args: 1)
    with pytest.raises(ConfigError, match="by name"):
        FunctionGrader(len)


def test_an_awaited_function_that_waits_for_the_loop_it_runs_on_is_told_so(chat):
    """It would wait for ever."""

    async def asks(response):
        return len(model.chat([{"role": "user", "content": response}]).text)

    with Endpoint() as endpoint:
        model = chat(endpoint)
        result = FunctionGrader(asks).evaluate(response="abc")
        assert (result.kind, "await it" in result.error) == ("function", True)
        assert (
            FunctionGrader(lambda response: asyncio.run(asks(response)), name="f")
            .evaluate(response="abc")
            .score
            == 3
        )
