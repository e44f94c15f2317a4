"""One shape of what a judge said: in code, by `rmg judge --json`, over HTTP and in a grader's metadata."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.graders import JudgeGrader, PairJudgeGrader
from rm_gallery.core.graders.fields import pair_row
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.fields import answer_fields, pair_fields
from rm_gallery.core.judge.single import ask
from rm_gallery.core.models import OpenAIChatModel
from rm_gallery.core.serve.schemas import Comparison, OrderResult, Score
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask
from rm_gallery.core.tasks.saved import save_task
from tests.service import serving

pytestmark = pytest.mark.usefixtures("one_thread")

FIELDS = ("verdict", "probabilities", "mass", "problem")
PAIR_FIELDS = ("verdict", "probabilities", "consistent", "orders", "problem")
DIMENSIONS = {"help": 2, "style": {"weight": 1, "scale": [-1, 1]}}


@pytest.fixture(params=[PointwiseTask(), MultiDimensionTask(dimensions=DIMENSIONS), PairwiseTask()], ids=str)
def judge(request, tiny_model, tmp_path):
    """(task, its saved judge, the same as a chat model)."""
    folder = shutil.copytree(tiny_model, tmp_path / "judge")
    save_task(folder, request.param.name, request.param, max_response_length=8)
    model = OpenAIChatModel(str(folder), is_local=True)
    yield request.param, folder, model
    model.close()


def close(found, wanted, error=1e-4):
    """Equal, numbers within what the make-up of a batch may change."""
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(close(found[key], wanted[key], error) for key in wanted)
    return found == (pytest.approx(wanted, abs=error) if isinstance(wanted, float) else wanted)


def test_every_way_of_asking_gives_the_same_fields(judge):
    task, folder, model = judge
    if task.responses == 2:
        given = {"query": "q", "response_a": "a", "response_b": "b"}
        path, grader, fields = "/v1/compare", PairJudgeGrader(model), PAIR_FIELDS
        result = grader.evaluate(query="q", responses=["a", "b"])
    else:
        given = {"query": "q", "response": "a"}
        path, grader, fields = "/v1/score", JudgeGrader(model), FIELDS
        result = grader.evaluate(query="q", response="a")
    with serving(folder) as service:
        [served] = service.results(path, [given])
    graded = {name: result.metadata[name] for name in fields}
    assert close(graded, {name: served[name] for name in fields})
    # what is asked once, as it stands: in code and by the command, which write the verdict too, in bfloat16 where that
    # is fastest
    said = ask(folder, *given.values())
    once = served["orders"]["forward"] if task.responses == 2 else served
    assert close(said.probabilities, once["probabilities"], 0.02)
    assert close(said.mass, once["mass"], 0.02)
    words = [f"--{name.replace('_', '-').removesuffix('-a')}={value}" for name, value in given.items()]
    printed = json.loads(CliRunner().invoke(app, ["judge", f"--model={folder}", "--json", *words]).output)
    assert set(printed) == {*FIELDS, "score", "text"}
    assert close(printed, said.to_dict())
    if task.responses == 1:
        assert close(said.score, served["score"], 0.05)
        assert result.score == pytest.approx(served["score"], abs=1e-4)
    else:
        assert said.score is None


def test_the_service_documents_these_fields():
    assert set(OrderResult.model_fields) == set(FIELDS)
    assert set(Score.model_fields) == {*FIELDS, "score"}
    assert set(Comparison.model_fields) == {*PAIR_FIELDS, "scores"}


def test_both_orders_stand_in_the_terms_of_the_pair(tiny_model):
    task, judge = PairwiseTask(), LocalJudge.load(tiny_model)
    rows = [pair_row("q", a, b) for a, b in (("yes", "no"), ("no", "yes"))]
    given = judge.answer(task, [task.messages(row) for row in rows], mode="expected", max_new_tokens=8)
    one, two = pair_fields(*given, task), pair_fields(*reversed(given), task)
    assert one["orders"]["forward"] == answer_fields(given[0], task)
    mirrored = {"A": "B", "B": "A", "tie": "tie"}
    for name, p in one["probabilities"].items():
        assert two["probabilities"][mirrored[name]] == pytest.approx(p)
        assert one["orders"]["swapped"]["probabilities"][name] == pytest.approx(
            two["orders"]["forward"]["probabilities"][mirrored[name]]
        )
    assert mirrored[one["verdict"]] == two["verdict"]
