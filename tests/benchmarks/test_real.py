"""The publishers' own files, as far as they lie beside the checkout."""

from __future__ import annotations

from collections import Counter

import pytest

from rm_gallery.core.evaluate.benchmarks import get_benchmark
from rm_gallery.core.evaluate.benchmarks.aggregate import figure
from rm_gallery.core.evaluate.benchmarks.ask import questions, scored
from rm_gallery.core.tasks import PairwiseTask
from tests.benchmarks.publishers import comparer, said, scorer

REAL = {
    "helpsteer2": ("helpsteer2", 260, 260),
    "helpsteer2_preference": ("helpsteer2/preference", 260, 260),
    "rm_bench": ("rm_bench", 413, 3717),
    "judgebench": ("judgebench", 270, 270),
    "llmbar": ("llmbar", 419, 419),
}


@pytest.mark.parametrize("name", REAL)
def test_every_row_is_read_and_can_be_asked(shared_data, name):
    folder, size, comparisons = REAL[name]
    items = get_benchmark(name).load(shared_data / folder)
    assert (len(items), sum(len(item.comparisons) for item in items)) == (size, comparisons)
    assert max(Counter(item.unique_id for item in items).values()) == 1
    asked = questions(items, 2)
    assert len(asked.asked) == 2 * comparisons
    assert all(turns[-1]["content"] for turns in asked.conversations(PairwiseTask()))


@pytest.mark.parametrize("name", REAL)
def test_perfect_judges_are_perfect(shared_data, name):
    items = get_benchmark(name).load(shared_data / REAL[name][0])
    for judged in (scorer(items), comparer(items, lambda c: said(c.truth, c.truth))):
        shares = get_benchmark(name).aggregate(items, judged)
        assert figure(shares, shares.headline) == 1


def longer(name, path):
    benchmark = get_benchmark(name)
    items = benchmark.load(path)
    return benchmark.aggregate(
        items, [scored(item, [float(len(r)) for r in item.responses]) for item in items]
    )


def test_taking_the_longer_answer_on_helpsteer2(shared_data):
    shares = longer("helpsteer2", shared_data / "helpsteer2")
    assert round(figure(shares, "accuracy_untied"), 3) == 0.613  # of 181 untied pairs, as measured elsewhere
    assert "260 pairs; the published validation split has 519." in shares.notes


def test_the_part_of_rm_bench_that_is_here_is_named(shared_data):
    shares = longer("rm_bench", shared_data / "rm_bench")
    assert shares.headline == "overall_partial"
    assert "0 of 529 math, 0 of 228 code, 0 of 157 safety-response" in shares.notes[0]
    assert {"chat", "safety_partial", "hard_partial"} <= set(shares.averages)
    assert (
        figure(shares, "easy_partial") > 0.8 > 0.1 > figure(shares, "hard_partial")
    )  # what the styles are made for


def test_the_whole_of_llmbar_and_of_a_split_of_judgebench_has_the_published_name(shared_data):
    for name, columns in (
        ("llmbar", {"natural", "neighbor", "gptinst", "gptout", "manual"}),
        ("judgebench", {"knowledge", "reasoning", "math", "coding"}),
    ):
        shares = longer(name, shared_data / name)
        assert (shares.headline, shares.notes) == ("overall", ())
        assert columns <= set(shares.columns)


def test_one_file_of_llmbar_by_itself(shared_data):
    items = get_benchmark("llmbar").load(shared_data / "llmbar" / "Natural" / "dataset.json")
    shares = get_benchmark("llmbar").aggregate(items, scorer(items))
    assert len(items) == 100
    assert figure(shares, "natural") == figure(shares, "overall_partial") == 1


def test_the_rated_responses_of_helpsteer2(shared_data):
    rows = get_benchmark("helpsteer2").rows(shared_data / "helpsteer2")
    assert len(rows) == 520
    assert round(sum(row["helpfulness"] == 4 for row in rows) / 520, 4) == 0.4038
