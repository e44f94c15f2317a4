"""docs/benchmarks.md says what the code does: every benchmark, its figures, its example."""

from __future__ import annotations

import json
import re

import pytest

from rm_gallery.core.evaluate.benchmarks import benchmark_names, get_benchmark
from rm_gallery.core.evaluate.benchmarks.aggregate import figure
from rm_gallery.core.evaluate.benchmarks.ask import judged
from rm_gallery.core.evaluate.benchmarks.recorded import read_recorded
from rm_gallery.core.evaluate.orders import ORDER_COLUMNS
from tests.benchmarks.publishers import lines, load, scorer
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def table(header: str) -> list[list[str]]:
    """The cells of the rows of the table that begins so."""
    [body] = re.findall(rf"^\| {re.escape(header)} \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in body.splitlines()]


def names(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`([\w]+)`", cell)]


def test_every_benchmark_stands_in_the_tables():
    for header in (
        "name | publisher | `--path` | headline, and how it is made",
        "name | source | verified",
        "name | a model that scores | a judge that compares",
    ):
        assert sorted(names([row[0] for row in table(header)])) == benchmark_names()


def test_verified_is_what_the_class_says():
    said = {names([row[0]])[0]: row[2].startswith("yes") for row in table("name | source | verified")}
    assert said == {name: get_benchmark(name).verified for name in benchmark_names()}


@pytest.mark.parametrize("name", benchmark_names())
def test_every_figure_is_named(name, tmp_path):
    items = load(name, tmp_path)
    shares = get_benchmark(name).aggregate(items, scorer(items))
    said = set(re.findall(r"`([^`]+)`", PROSE)) | {f"style_{i}_{j}" for i in range(3) for j in range(3)}
    # every subset, domain by level, topic by tag and side of PandaLM is described, not listed
    described = r"=|-|_(easy|normal|hard)$|_(first|second|tie)$|^ties_margins$|^donotanswer$"
    found = {each.replace("_partial", "") for each in (*shares.columns, *shares.averages)}
    assert {each for each in found if not re.search(described, each)} <= said


def test_every_figure_of_the_orders_is_defined():
    defined = names([row[0] for row in table("figure | over | definition")])
    assert sorted(defined) == sorted(["combined_accuracy", *ORDER_COLUMNS])


def test_the_example_is_short_and_works(tmp_path):
    [code] = blocks("python")
    assert len(code.splitlines()) < 40
    path = tmp_path / code.splitlines()[0].removeprefix("# ")
    path.write_text(code, encoding="utf-8")
    for _ in range(2):  # a second loading of the file is not a second benchmark
        benchmark = get_benchmark(f"{path}:Arena")
    rows = [{"question": f"q{i}", "good": f"g{i}", "bad": f"b{i}", "topic": t} for i, t in enumerate("xxy")]
    items = benchmark.load(lines(tmp_path / "pairs.jsonl", rows))
    wrong = [*scorer(items[:1], -1), *scorer(items[1:])]
    shares = benchmark.aggregate(items, wrong)
    assert figure(shares, "overall") == pytest.approx((0.5 + 1) / 2)
    assert set(ORDER_COLUMNS) < set(shares.columns)
    _forget("arena")


def _forget(name: str) -> None:
    """Other tests count the benchmarks."""
    from rm_gallery.core.evaluate.benchmarks import base

    del base._REGISTRY[name]


def test_the_lines_of_ones_own_file_are_read(tmp_path):
    own = blocks("json")[1]
    items = get_benchmark("jsonl").load(
        lines(tmp_path / "own.jsonl", [json.loads(line) for line in own.splitlines()])
    )
    assert [len(item.comparisons) for item in items] == [1, 3]


def test_the_lines_of_recorded_verdicts_are_read(tmp_path):
    rows = [json.loads(line) for line in blocks("json")[0].splitlines()]
    pairs = [
        {"unique_id": name, "prompt": "x", "responses": ["a", "b"], "preferred": "A"} for name in ("17", "18")
    ]
    many = {"unique_id": "chat/8", "prompt": "y", "responses": list("abcd"), "labels": [4, 3, 2, 1]}
    items = get_benchmark("jsonl").load(lines(tmp_path / "own.jsonl", [*pairs, many]))
    verdicts = read_recorded(items, lines(tmp_path / "verdicts.jsonl", rows[:3]))
    first = judged(items, verdicts.questions, verdicts.answers, None)[0].outcomes[0]
    assert (first.forward, first.swapped, first.preferred) == ("A", "A", "A")
    scores = read_recorded(items, lines(tmp_path / "scores.jsonl", rows[3:]))
    assert judged(items, scores.questions, scores.answers, None)[1].values == (0.3, -1.2)
