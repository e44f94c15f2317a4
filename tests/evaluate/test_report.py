"""The report: self-contained, the same bytes, nothing from models or data gets to be markup."""

from __future__ import annotations

import builtins
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate import score_outputs
from rm_gallery.core.evaluate.report import Evaluation, ReportInput, TrainingRun, read_inputs, render_report
from rm_gallery.core.evaluate.result import build_result, write_result
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask

from .helpers import pair_row, sample_row

EVIL = "<script>alert('x')</script>"


def scores_result(seed, model="m", rows=40, text=EVIL):
    rng = np.random.default_rng(seed)
    data = [sample_row(i, i % 5, f"{EVIL} question {i}", f"{EVIL} answer {i}") for i in range(rows)]
    texts = [text if i % 7 == 0 else f"<score>{rng.integers(0, 5)}</score>{EVIL}" for i in range(rows)]
    predictions = score_outputs(PointwiseTask(), data, texts)
    return build_result(PointwiseTask(), predictions, data, benchmark=f"b{EVIL}", model=model)


def log(steps=30):
    train = [
        {
            "step": s,
            "split": "train",
            "reward/mean": s / 50,
            "accuracy": 0.3,
            "timing_s/step": 1.5,
            "kl_loss": 0.01,
        }
        for s in range(1, steps + 1)
    ]
    return (
        *train,
        {"step": 10, "split": "val", "reward/mean": 0.2},
        {"step": 20, "split": "val", "mae": 1.0},
    )


@pytest.fixture(scope="module")
def page():
    evaluations = [Evaluation("before", scores_result(0)), Evaluation("after", scores_result(1))]
    return render_report(ReportInput(evaluations, [TrainingRun(f"run{EVIL}", log(), "task: pointwise")]))


class Balance(HTMLParser):
    """Fails where a tag is closed that is not the open one."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        if "id" in values:
            self.ids.append(values["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing(page):
    parsed = Balance()
    parsed.feed(page)
    assert parsed.open == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert all(address.startswith("#") for address in parsed.addresses)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_text_of_models_and_data_is_escaped(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_it_says_first_whether_the_judge_beats_the_best_constant(page):
    assert re.search(r"<h1 class=\"(yes|no|open)\">The judge [^<]+constant", page)
    for section in (
        "Every system on the same rows",
        "Before and after",
        "Training: run",
        "judged examples",
        "invalid",
    ):
        assert section in page


def test_the_same_input_gives_the_same_bytes():
    content = ReportInput([Evaluation("a", scores_result(0))], [TrainingRun("t", log())])
    assert render_report(content) == render_report(content)


def test_charts_scale_and_their_text_is_text(page):
    drawings = re.findall(r"<svg[^>]*>", page)
    assert len(drawings) == 7  # systems, two histograms, and the four metrics that the run logged
    assert all("viewBox" in tag and not re.search(r'\swidth="', tag) for tag in drawings)
    assert ">step</text>" in page


def test_examples_are_ten_and_say_why_they_are_shown(page):
    kinds = re.findall(r"<h3>\d+\. ([a-z ]+) <small>", page)
    assert len(kinds) == 10
    assert kinds[0] == "right"
    assert {"worst disagreement", "invalid output"} <= set(kinds)


def test_pairs_and_scores_stand_in_sections_of_their_own():
    rows = [
        pair_row(i, "A" if i % 2 else "B", f"q {i // 2}", *(("x", "y") if i % 2 else ("y", "x")))
        for i in range(20)
    ]
    predictions = score_outputs(PairwiseTask(), rows, ["<preference>A</preference>"] * 20)
    pairs = build_result(PairwiseTask(), predictions, rows, benchmark="pairs", model="m")
    page = render_report(ReportInput([Evaluation("scores", scores_result(0)), Evaluation("pairs", pairs)]))
    assert page.count("Every system on the same rows") == 2
    assert "Response B" in page
    assert "Before and after" not in page


def test_without_matplotlib_the_report_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    page = render_report(ReportInput([Evaluation("a", scores_result(0))], [TrainingRun("t", log())]))
    assert "rm-gallery[plot]" in page
    assert "<svg" not in page


def test_the_command_joins_evaluations_and_runs(tmp_path):
    write_result(tmp_path / "before", scores_result(0))
    write_result(tmp_path / "after", scores_result(1))
    run = tmp_path / "train"
    run.mkdir()
    lines = [json.dumps(record) for record in log()]
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 31, "spl')  # still being written
    out = tmp_path / "new" / "report.html"
    folders = [str(tmp_path / name) for name in ("before", "train", "after")]
    done = CliRunner().invoke(app, ["report", *folders, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "Training: train" in out.read_text()


@pytest.mark.parametrize("content", ["not json\n{}\n", '{"loss": 1}\n{"step": 2}\n'])
def test_a_broken_log_is_refused_by_its_line(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(DataError, match="line 1"):
        read_inputs([tmp_path])


def test_a_folder_with_nothing_names_its_subfolders_that_have_something(tmp_path):
    write_result(tmp_path / "inner", scores_result(0))
    with pytest.raises(DataError, match="inner"):
        read_inputs([tmp_path])
    with pytest.raises(DataError, match="no folder"):
        read_inputs([tmp_path / "absent"])


def test_importing_evaluation_loads_nothing_heavy():
    code = (
        "import sys, rm_gallery.core.evaluate, rm_gallery.core.evaluate.report;"
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'pandas', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
