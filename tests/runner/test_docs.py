"""The page about the runner says what it does, and its blocks run."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import warnings

import pytest

from rm_gallery.core.runner import GradingRunner
from rm_gallery.core.runner.attempt import RETRIED
from tests.conftest import ROOT
from tests.endpoint import Endpoint

PAGE = (ROOT / "docs" / "runner.md").read_text(encoding="utf-8")


def test_its_blocks_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)

    def answer(body):
        right = "It is 5" in body["messages"][0]["content"]
        return json.dumps({"reason": "So.", "score": 4 if right else 1})

    with Endpoint(answer=answer) as endpoint, warnings.catch_warnings():
        warnings.simplefilter("error")
        places: dict = {}
        for block in blocks:
            source = block.replace("http://127.0.0.1:8000/v1", endpoint.base_url)
            code = compile(source, "runner.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(code, places)  # noqa: S307 - our own page
            if waiting is not None:
                asyncio.run(waiting)
        places["model"].close()
    assert [result.score for result in places["results"]["overall"]] == [12, 3]
    assert places["best"].best == 0
    values = [found.value for found in places["table"].strengths.values()]
    assert values[0] < values[1]
    assert sum(values) == pytest.approx(0)
    assert "Estimate(" in capsys.readouterr().out


def test_every_argument_stands_there_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE, re.MULTILINE))
    parameters = inspect.signature(GradingRunner).parameters
    assert list(rows) == list(parameters)
    for name, parameter in parameters.items():
        default = parameter.default
        if default is not inspect.Parameter.empty and default is not None:
            assert str(default) in rows[name]


def test_what_is_asked_again_is_named():
    sentence = re.search(r"Requests that failed by (.*?) are made again", PAGE, re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", sentence)) == RETRIED
