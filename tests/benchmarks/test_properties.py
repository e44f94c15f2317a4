"""What holds on every benchmark, whatever its format: a perfect judge, an inverted one, ones that do not read."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate.benchmarks import Outcome, benchmark_names, get_benchmark
from rm_gallery.core.evaluate.benchmarks.aggregate import figure
from rm_gallery.core.evaluate.benchmarks.ask import questions
from rm_gallery.core.evaluate.shares import share_estimates
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from tests.benchmarks.publishers import (
    ALWAYS_FIRST,
    FILES,
    MIRROR,
    comparer,
    load,
    said,
    scorer,
)

every = pytest.mark.parametrize("name", sorted(FILES))


def headline(name, items, judged) -> float:
    shares = get_benchmark(name).aggregate(items, judged)
    return figure(shares, shares.headline)


def without_ties(items):
    kept = [
        replace(item, comparisons=tuple(c for c in item.comparisons if c.truth != "tie")) for item in items
    ]
    return [item for item in kept if item.comparisons]


def test_there_is_a_file_of_every_benchmark():
    assert sorted(FILES) == benchmark_names()


@every
def test_a_perfect_model_that_scores_is_right_everywhere(name, tmp_path):
    items = load(name, tmp_path)
    # the publisher's bonus for margins takes Ties to 1.01
    best = 1 + 0.01 / 6 if name == "rewardbench2" else 1
    assert headline(name, items, scorer(items)) == pytest.approx(best, abs=1e-12)


@every
def test_a_perfect_judge_that_compares_is_right_everywhere(name, tmp_path):
    items = load(name, tmp_path)
    judged = comparer(items, lambda c: said(c.truth, c.truth))
    shares = get_benchmark(name).aggregate(items, judged)
    assert figure(shares, shares.headline) == 1
    assert figure(shares, "two_order_accuracy") == figure(shares, "combined_accuracy") == 1
    assert figure(shares, "flip_rate") == figure(shares, "invalid_rate") == 0


@every
def test_an_inverted_judge_is_right_nowhere(name, tmp_path):
    items = without_ties(load(name, tmp_path))
    assert headline(name, items, scorer(items, -1)) == 0
    assert headline(name, items, comparer(items, lambda c: said(MIRROR[c.truth], MIRROR[c.truth]))) == 0


@every
def test_a_judge_that_names_the_first_is_half_right_at_best_and_never_in_both_orders(name, tmp_path):
    items = load(name, tmp_path)
    shares = get_benchmark(name).aggregate(items, comparer(items, ALWAYS_FIRST))
    assert figure(shares, shares.headline) <= 0.5
    assert figure(shares, "two_order_accuracy") == 0
    assert figure(shares, "first_position_rate") == figure(shares, "flip_rate") == 1


@every
def test_a_judge_that_gives_no_verdict_earns_nothing_and_is_counted(name, tmp_path):
    items = load(name, tmp_path)
    shares = get_benchmark(name).aggregate(items, comparer(items, Outcome(None, None, None)))
    assert figure(shares, shares.headline) == 0
    assert figure(shares, "invalid_rate") == 1
    assert math.isnan(figure(shares, "flip_rate"))


@every
def test_the_order_of_the_items_does_not_matter(name, tmp_path):
    items = load(name, tmp_path)
    benchmark = get_benchmark(name)
    judged = scorer(items)
    forward = share_estimates(benchmark.aggregate(items, judged), resamples=2)
    backward = share_estimates(benchmark.aggregate(items[::-1], judged[::-1]), resamples=2)
    assert {k: v.value for k, v in forward.items()} == pytest.approx(
        {k: backward[k].value for k in forward}, nan_ok=True
    )


@every
def test_ids_are_unique_and_every_question_can_be_put(name, tmp_path):
    items = load(name, tmp_path)
    assert max(Counter(item.unique_id for item in items).values()) == 1
    for task in (PointwiseTask(), PairwiseTask(), None):
        asked = questions(items, 1 if task is None else task.responses)
        assert max(Counter(question.key for question in asked.asked).values()) == 1
        assert all(turns[-1]["content"] for turns in asked.conversations(task))


@every
def test_a_part_is_never_named_like_the_published_figure(name, tmp_path):
    items = load(name, tmp_path)
    shares = get_benchmark(name).aggregate(items, scorer(items))
    if name in ("jsonl", "helpsteer2_preference"):  # nothing is published for them
        assert not shares.notes
    elif name == "helpsteer2":
        assert "519" in " ".join(shares.notes)
    else:
        assert shares.headline.endswith("_partial")
        assert all("partial" in each for each in shares.averages)
        assert "not the whole of" in " ".join(shares.notes)


@every
def test_a_file_that_is_not_there_or_holds_something_else_is_an_error(name, tmp_path):
    benchmark = get_benchmark(name)
    with pytest.raises(DataError):
        benchmark.load(tmp_path / "nothing.json")
    other = tmp_path / "Natural" / "dataset.json"
    other.parent.mkdir()
    other.write_text('[{"some": "thing"}]', encoding="utf-8")
    with pytest.raises(DataError, match=r"dataset\.json:1: "):
        benchmark.load(other)


@every
def test_a_source_is_named(name):
    assert get_benchmark(name).source
    assert isinstance(get_benchmark(name).verified, bool)


def test_an_unknown_benchmark_is_an_error_that_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'rm_bench'"):
        get_benchmark("rmbench")
