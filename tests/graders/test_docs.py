"""docs/graders.md says what the code does, and its blocks run."""

from __future__ import annotations

import json
import re
import shutil
from typing import get_args

from rm_gallery.core.graders import NO_REASON, common
from rm_gallery.core.models.chat import Kind
from tests.conftest import ROOT
from tests.endpoint import Endpoint
from tests.pages import blocks, run_notebook, table

PAGE = "graders.md"


def test_the_blocks_run(judge_folders, tmp_path, monkeypatch, one_thread, capsys):
    for name, place in (("pointwise", "quickstart/grpo"), ("pairwise", "pairwise")):
        shutil.copytree(judge_folders[name], tmp_path / "runs" / place / "actor_latest")
    monkeypatch.chdir(tmp_path)
    said = json.dumps({"reason": "So.", "score": 3, "language": "English"})
    with Endpoint(answer=lambda _: said) as endpoint:
        code = "\n".join(blocks(PAGE)).replace("http://127.0.0.1:8000/v1", endpoint.base_url)
        names = run_notebook(code, tmp_path)
        assert endpoint.count == 3
    assert names["result"].metadata["language"] == "English"
    assert (names["relevance"].reason, names["correctness"].score) == ("So.", 3)
    assert names["short"].name == "short"
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:] == ["1.0", "1.0", "1.0", "$: 'city' is a required property", "1.0"]
    names["judge"].close()
    names["model"].close()


def test_the_table_of_criteria_is_the_codes():
    rows = table(PAGE, "grader | fields beside `query` and `response` | 0 | 4")
    made = {row[0].strip("`"): row for row in rows}
    kinds = {kind for kind in vars(common).values() if isinstance(kind, type) and hasattr(kind, "meaning")}
    assert set(made) == {kind.__name__ for kind in kinds}
    for kind in kinds:
        _, fields, low, high = made[kind.__name__]
        assert (low, high) == kind.meaning
        assert ("optional" in fields) == bool(kind.may_lack)


def test_every_kind_of_error_is_explained():
    rows = table(PAGE, "`kind` | cause")
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert {*get_args(Kind), "failed", "unparsable", "data", "function"} <= named


def test_the_sentence_of_a_judge_without_a_reason_is_quoted():
    assert f"`{NO_REASON}`" in (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
