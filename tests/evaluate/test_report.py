"""The report: self-contained, the same bytes, nothing from models or data gets to be markup, nothing marked unproven."""

from __future__ import annotations

import base64
import builtins
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.report import Evaluation, ReportInput, TrainingRun, read_inputs, render_report
from rm_gallery.core.evaluate.result import write_result

from .reports import EVIL, log, pairs_result, scores_result, write_folders


@pytest.fixture(scope="module")
def page():
    evaluations = [Evaluation("before", scores_result(0)), Evaluation("after", scores_result(1))]
    return render_report(ReportInput(evaluations, [TrainingRun(f"run{EVIL}", log(), "task: pointwise")]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def whole(folders):
    return render_report(
        read_inputs([folders / name for name in ("before", "after", "scalar", "compares", "rates", "run")])
    )


class Balance(HTMLParser):
    """Fails where a tag is closed that is not the open one."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.addresses, self.handlers = [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        self.handlers += [name for name in values if name.startswith("on")]
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


@pytest.mark.parametrize("which", ["page", "whole"])
def test_the_page_is_well_formed_and_loads_nothing(which, request):
    page = request.getfixturevalue(which)
    parsed = Balance()
    parsed.feed(page)
    assert parsed.open == parsed.handlers == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert all(address[0] == "#" and address[1:] in parsed.ids for address in parsed.addresses)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


@pytest.mark.parametrize("which", ["page", "whole"])
def test_text_of_models_and_data_is_escaped(which, request):
    page = request.getfixturevalue(which)
    assert page.count("<script") == 1, "the report's own, and it is the one that the policy allows"
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert "alert" not in script
    assert "&lt;script&gt;" in page


hostile = st.text(st.sampled_from("<>&\"'$\\{}%#\n\r\0 aﬁ你"), min_size=1, max_size=12)


@settings(max_examples=8)
@given(name=hostile, model=hostile, benchmark=hostile)
def test_names_are_text_wherever_they_stand(name, model, benchmark):
    """In tables, attributes, and drawings, where matplotlib would read a formula."""
    result = replace(scores_result(0, rows=10), model=model, benchmark=benchmark)
    page = render_report(ReportInput([Evaluation(name, result)], [TrainingRun(name, log(3))]))
    parsed = Balance()
    parsed.feed(page)
    assert (parsed.open, parsed.handlers, page.count("<script")) == ([], [], 1)


def test_without_texts_nothing_that_was_judged_or_written_is_in_it(folders, tmp_path):
    for options, expected in (((), True), (("--no-texts",), False)):
        out = tmp_path / f"report{len(options)}.html"
        names = [str(folders / name) for name in ("before", "after", "scalar", "compares", "rates")]
        done = CliRunner().invoke(app, ["report", *names, "--out", str(out), *options])
        assert done.exit_code == 0, done.output
        page = out.read_text()
        for text in ("question 1", "answer 1", "right 1 in style"):
            assert (text in page) == expected, text
        assert "The worst disagreements" in page
        assert "row-" in page, "the rows have their names"


def test_the_same_input_gives_the_same_bytes(folders):
    names = ("before", "after", "compares", "scalar", "run")
    first = render_report(read_inputs([folders / name for name in names]))
    assert first == render_report(read_inputs([folders / name for name in names]))


def test_it_says_first_whether_the_judge_beats_the_best_constant(page):
    assert re.search(r"<h1 class=\"(yes|no|open)\">The judge [^<]+constant", page)
    for section in (
        "Every system on the same rows",
        "Against what costs nothing",
        "From before to after",
        "Answers without a verdict",
        "Training: run",
        "The worst disagreements",
    ):
        assert section in page


def test_every_kind_of_section_is_there(whole):
    """Judges that compare, rate and score stand in one comparison on a benchmark."""
    assert whole.count("Every system on the same items") == 1
    for words in (
        "Does the order of the responses matter?",
        "scalar scores each response by itself: it is shown no order.",
        "Substance against style",
        "long with Markdown",
        "Figures against steps",
        "number given to a response</text>",
        "probability of its verdict</text>",
        "run step 20",
        "This is not the whole of RM-Bench",
    ):
        assert words in whole, words


def test_charts_scale_and_their_text_is_text(page):
    drawings = re.findall(r"<svg[^>]*>", page)
    assert len(drawings) == 7  # systems, two histograms, and the four metrics that the run logged
    assert all("viewBox" in tag and not re.search(r'\swidth="', tag) for tag in drawings)
    assert ">training step</text>" in page


def test_pairs_and_scores_stand_in_sections_of_their_own():
    evaluations = [Evaluation("scores", scores_result(0)), Evaluation("pairs", pairs_result())]
    page = render_report(ReportInput(evaluations))
    assert page.count("Every system on the same rows") == 2
    assert "Response B" in page
    assert "From scores to pairs" not in page
    assert "2 evaluations in 2 comparisons" in page


# -- folders and the command


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


def test_the_command_joins_evaluations_and_runs(folders, tmp_path):
    run = tmp_path / "train"
    run.mkdir()
    lines = [json.dumps(record) for record in log()]
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 31, "spl')  # still being written
    out = tmp_path / "new" / "report.html"
    given = [str(path) for path in (folders / "before", run, folders / "after")]
    done = CliRunner().invoke(app, ["report", *given, "--out", str(out)])
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


# -- in a browser


@pytest.fixture
def browse(tmp_path):
    """(page, width) → the page after its script has run, as the browser has it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser: chromium or google-chrome")

    def dump(page, width):
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        done = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom"),
                (tmp_path / "page.html").as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout

    return dump


def measured(page, script):
    """The page with a second script, which the report's own policy would not let run."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    return page.replace("</body>", f"<script>{script}</script></body>")


def framed(page, script, width):
    """A window whose title is what `script` makes of the page's, in a frame: no window is as narrow as a phone."""
    inner = measured(page, script).replace("&", "&amp;").replace('"', "&quot;")
    return (
        f'<!doctype html><iframe id="f" style="width:{width}px;border:0" srcdoc="{inner}"></iframe><script>'
        "onload = () => { document.title = document.getElementById('f').contentDocument.title }</script>"
    )


def test_the_lists_can_be_searched_in_a_browser(whole, browse):
    """Under the report's own policy the search appears; its words, judge and outcome narrow the list."""
    shown = browse(whole, 1440)
    assert re.search(r'<form class="filter">', shown), "the script ran"
    assert shown.count('<details class="case"') == whole.count('<details class="case"')
    narrowed = browse(
        measured(
            whole,
            "const form = document.querySelector('.filter'); form.elements.judge.value = '1';"
            "form.elements.words.value = 'QUESTION answer'; form.elements.what.value = 'missing';"
            "form.dispatchEvent(new Event('input'));"
            "document.title = form.querySelector('output').value;",
        ),
        1440,
    )
    missing = sum(i % 7 == 0 for i in range(40))
    title = re.search(r"<title>(\d+) of (\d+)</title>", narrowed)
    assert title, narrowed[:500]
    assert int(title[1]) == missing
    assert int(title[2]) > missing


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_page(whole, browse, width):
    """Wide tables scroll inside themselves."""
    widths = (
        "const page = document.documentElement; document.title = `${page.scrollWidth} ${page.clientWidth}`"
    )
    found = re.search(r"<title>(\d+) (\d+)</title>", browse(framed(whole, widths, width), 1500))
    assert found
    assert found[1] == found[2], "all of it, and what is visible without scrolling sideways"
    assert 0 <= width - int(found[2]) < 20


@pytest.mark.parametrize("width", [390, 1200, 1440])
def test_a_matrix_of_labels_and_verdicts_is_seen_whole(whole, browse, width):
    """Beside the drawings as long as it fits, else under them, and not cut off at its last columns."""
    script = (
        "document.title = [...document.querySelectorAll('.charts .whole')]"
        ".map((e) => `${e.scrollWidth - e.clientWidth}/${e.querySelectorAll('thead th').length}`).join(' ')"
    )
    found = re.search(r"<title>([\d /-]+)</title>", browse(framed(whole, script, width), 1500))
    assert found
    matrices = [each.split("/") for each in found[1].split()]
    assert any(int(columns) == 8 for _, columns in matrices), "of five scores, invalid and all"
    assert {hidden for hidden, columns in matrices if int(columns) <= 8} == {"0"}


def test_a_configuration_is_folded(folders, tmp_path):
    """It is long; print shows it all the same."""
    run = shutil.copytree(folders / "run", tmp_path / "run")
    (run / "config.yaml").write_text("task: pointwise\n" * 200)
    page = render_report(read_inputs([run]))
    folded = re.findall(
        r"<details[^>]*><summary>Its configuration</summary><pre>(.*?)</pre></details>", page, re.DOTALL
    )
    assert [text.count("task: pointwise") for text in folded] == [200]
    assert page.count("task: pointwise") == 200
    assert "details-content" in page
