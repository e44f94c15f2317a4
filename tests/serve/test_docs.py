"""The page of the documentation says what the service does, and its requests work."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import typer

from rm_gallery.cli import app
from rm_gallery.core.judge.subject import Candidate
from rm_gallery.core.serve import create_app
from rm_gallery.core.tasks.pointwise import PointwiseTask
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))


def test_every_option_is_explained():
    command = typer.main.get_command(app).commands["serve"]
    options = {p.opts[0] for p in command.params if p.opts[0].startswith("-")} - {"--help"}
    assert options <= NAMED


def test_every_path_is_listed(pointwise):
    schema = pointwise.http.get("/openapi.json").json()
    paths = {f"{method.upper()} {path}" for path, found in schema["paths"].items() for method in found}
    assert paths <= NAMED
    statuses = {int(s) for found in schema["paths"].values() for o in found.values() for s in o["responses"]}
    listed = set(map(int, re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)))
    assert statuses - {200, 405, 500} == listed


def test_every_field_of_a_score_and_every_figure_is_explained(pointwise):
    [result] = pointwise.results("/v1/score", [{"query": "q", "response": "r"}])
    assert set(result) <= NAMED
    samples = pointwise.http.get("/metrics").text.splitlines()
    families = {line.split()[2] for line in samples if line.startswith("# TYPE")}
    assert {name for name in families if not name.endswith("_created")} == {
        name for name in NAMED if name.startswith("rmg_")
    }


def requests():
    blocks = re.findall(r"^```json\n(.*?)^```\n\nto `([^`]+)`", PAGE, re.MULTILINE | re.DOTALL)
    return [pytest.param(path, json.loads(body), id=path) for body, path in blocks]


@pytest.mark.parametrize(("path", "body"), requests())
def test_the_requests_work(pointwise, pairwise, path, body):
    for running in (pointwise, pairwise)[path == "/v1/score" :][: 1 + (path != "/v1/score")]:
        response = (pointwise if path == "/v1/score" else running).post(path, body)
        assert response.status_code == 200, response.text
        assert len(response.json()["results"]) == len(body["items"])


def test_all_three_kinds_of_requests_are_shown():
    assert [p.values[0] for p in requests()] == ["/v1/score", "/v1/compare", "/v1/rank"]


def test_the_program_works(tiny_model):
    """Its model is one without a card, so it is told the task."""
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert "create_app(Candidate(" in code
    assert create_app(Candidate(str(tiny_model)).open(), PointwiseTask()).title == "rm_gallery"


def test_neither_the_command_line_nor_the_settings_load_a_server_or_torch():
    code = (
        "import sys, rm_gallery.cli, rm_gallery.core.serve; "
        "print([m for m in ('torch', 'transformers', 'fastapi', 'uvicorn', 'prometheus_client') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
