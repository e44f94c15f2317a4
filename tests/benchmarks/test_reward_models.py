"""RM-Bench and both RewardBenches: each figure by hand, or against an independent formula."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks import Judged, Outcome, get_benchmark
from rm_gallery.core.evaluate.benchmarks.aggregate import figure
from rm_gallery.core.evaluate.benchmarks.ask import scored
from rm_gallery.gallery.benchmarks import rewardbench, rm_bench
from tests.benchmarks import publishers
from tests.benchmarks.publishers import (
    ALWAYS_FIRST,
    NO,
    array,
    comparer,
    figures_of,
    lines,
    load,
    said,
    scorer,
)

score = st.integers(-3, 3).map(float)


# -- RM-Bench


def test_rm_bench_by_hand(tmp_path):
    path = array(tmp_path / "chat_filtered.json", [publishers.rm_bench_row(1, "chat")])
    items = get_benchmark("rm_bench").load(path)
    # chosen in three styles, rejected in three; 2 > 2 is not right
    found = figures_of("rm_bench", items, [scored(items[0], [1, 2, 3, 0, 2, 5])])
    matrix = [[found[f"style_{i}_{j}"] for j in range(3)] for i in range(3)]
    assert matrix == [[1, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert [found[f"chat_partial_{level}"] for level in rm_bench.LEVELS] == pytest.approx([1, 1 / 3, 0])
    assert found["overall_partial"] == pytest.approx(4 / 9)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(rm_bench.SIZES)), st.lists(score, min_size=6, max_size=6)), min_size=1
    )
)
def test_rm_bench_as_the_publisher_computes_it(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rm_bench")
    path = array(folder / "x.json", [publishers.rm_bench_row(i, d) for i, (d, _) in enumerate(rows)])
    items = get_benchmark("rm_bench").load(path)
    found = figures_of("rm_bench", items, [scored(i, v) for i, (_, v) in zip(items, rows, strict=True)])
    by_domain = {}
    for domain in {domain.split("-")[0] for domain, _ in rows}:
        cells = np.zeros((3, 3))
        own = [np.array(values) for name, values in rows if name.split("-")[0] == domain]
        for values in own:
            cells += values[:3, None] > values[None, 3:]
        cells /= len(own)
        by_domain[domain] = [np.tril(cells, -1).sum() / 3, np.diag(cells).mean(), np.triu(cells, 1).sum() / 3]
    for domain, levels in by_domain.items():
        assert found[f"{domain}_partial"] == pytest.approx(np.mean(levels), abs=1e-12)
    easy, normal, hard = np.mean(list(by_domain.values()), axis=0)
    assert found["easy_partial"] == pytest.approx(easy, abs=1e-12)
    assert found["normal_partial"] == pytest.approx(normal, abs=1e-12)
    assert found["hard_partial"] == pytest.approx(hard, abs=1e-12)
    assert found["overall_partial"] == pytest.approx(np.mean([easy, normal, hard]), abs=1e-12)


def test_rm_bench_whole_has_the_published_names(tmp_path):
    rows = [publishers.rm_bench_row(i, d) for d, size in rm_bench.SIZES.items() for i in range(size)]
    items = get_benchmark("rm_bench").load(array(tmp_path / "total_dataset.json", rows))
    shares = get_benchmark("rm_bench").aggregate(items, scorer(items))
    assert (shares.headline, shares.notes, len(items)) == ("overall", (), 1327)
    assert {*rm_bench.DOMAINS, *rm_bench.LEVELS, "overall"} == set(shares.averages)
    part = get_benchmark("rm_bench").aggregate(items[:700], scorer(items[:700]))
    assert part.headline == "overall_partial"
    assert {"chat", "math"} <= set(part.averages)
    assert "42 of 228 code" in part.notes[0]


def test_the_domain_is_in_the_row_or_in_the_name_of_the_file(tmp_path):
    row = {k: v for k, v in publishers.rm_bench_row(1, "chat").items() if k != "domain"}
    with pytest.raises(DataError, match=r"some\.json:1: the domain.*'some'"):
        get_benchmark("rm_bench").load(array(tmp_path / "some.json", [row]))
    [item] = get_benchmark("rm_bench").load(array(tmp_path / "safety-refuse_filtered.json", [row]))
    assert item.tags["domain"] == "safety-refuse"


# -- RewardBench


def rewardbench_items(tmp_path, whole=True, extra=()):
    rows = [
        publishers.rewardbench_row(s, i)
        for s, n in rewardbench.SIZES.items()
        for i in range(n if whole else 1)
    ]
    rows += [publishers.rewardbench_row(name) for name in extra]
    return get_benchmark("rewardbench").load(lines(tmp_path / "filtered.jsonl", rows))


def wrong_on(items, subset):
    return [scored(item, [0, 1] if item.tags["subset"] == subset else [1, 0]) for item in items]


def test_rewardbench_sections_have_the_publishers_weights(tmp_path):
    items = rewardbench_items(tmp_path)
    assert len(items) == 2985
    # math counts 984 of 1968 though it has 447 prompts
    assert figures_of("rewardbench", items, wrong_on(items, "math-prm"))["reasoning"] == pytest.approx(0.5)
    # XSTest's two weights as published, though the numbers of prompts are the other way round
    safety = figures_of("rewardbench", items, wrong_on(items, "xstest-should-refuse"))["safety"]
    assert safety == pytest.approx(1 - 250 / 740)
    found = figures_of("rewardbench", items, wrong_on(items, "mt-bench-hard"))
    assert found["chat_hard"] == pytest.approx(1 - 37 / 456)
    assert found["overall"] == pytest.approx(1 - 37 / 456 / 4)


def test_rewardbench_prior_sets_count_half_a_section(tmp_path):
    items = rewardbench_items(tmp_path, extra=rewardbench.PRIOR_SETS)
    found = figures_of("rewardbench", items, wrong_on(items, "shp"))
    assert found["prior_sets"] == pytest.approx(3 / 4)
    assert found["overall"] == pytest.approx((4 + 0.5 * 3 / 4) / 4.5)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (said("A", "A"), 1),
        (ALWAYS_FIRST, 0.5),  # right in one of the two orders that the publisher draws from
        (said("tie", "tie"), 0.5),  # a verdict for neither is half right there
        (Outcome("A", "tie", "A"), 0.75),
        (NO, 0),  # the publisher gives half for it; here it earns nothing, and a note says so
    ],
)
def test_rewardbench_what_a_verdict_earns(tmp_path, outcome, expected):
    items = rewardbench_items(tmp_path, whole=False)
    shares = get_benchmark("rewardbench").aggregate(items, comparer(items, outcome))
    assert figure(shares, "overall_partial") == pytest.approx(expected)
    note = [each for each in shares.notes if "earns nothing" in each]
    assert (note != []) == (outcome == NO)
    assert not note or "`overall_partial` 0.5000" in note[0]


def test_rewardbench_equal_scores_are_not_right(tmp_path):
    items = rewardbench_items(tmp_path, whole=False)
    assert figures_of("rewardbench", items, [scored(i, [1, 1]) for i in items])["overall_partial"] == 0


def test_rewardbench_a_subset_of_no_section_is_an_error(tmp_path):
    path = lines(tmp_path / "x.jsonl", [publishers.rewardbench_row("alpacaeval")])
    with pytest.raises(DataError, match=r"x\.jsonl:1: subset is of no section.*'alpacaeval'"):
        get_benchmark("rewardbench").load(path)


# -- RewardBench 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 2, 1, 0], 1),
        ([3, 3, 1, 0], 1 / 2),
        ([3, 3, 3, 3], 1 / 4),
        ([2, 3, 1, 0], 0),
        ([3, None, 1, 0], 0),  # nobody knows whether it is the best
    ],
)
def test_rewardbench2_best_of_four(tmp_path, values, expected):
    path = lines(tmp_path / "x.jsonl", [publishers.rewardbench2_row("Focus", "1")])
    items = get_benchmark("rewardbench2").load(path)
    shares = get_benchmark("rewardbench2").aggregate(items, [scored(items[0], values)])
    assert figure(shares, "focus_partial") == pytest.approx(expected)
    if None in values:  # the publisher takes a missing rating for the lowest
        assert "makes `overall_partial` 1.0000" in shares.notes[-1]


def test_rewardbench2_a_judge_that_compares_must_win_all_three(tmp_path):
    items = load("rewardbench2", tmp_path)
    one_lost = [said("A", "A"), said("A", "A"), said("B", "B")]
    judged = [
        Judged(tuple(one_lost if item.tags["subset"] == "Math" else [said("A", "A")] * len(item.comparisons)))
        for item in items
    ]
    shares = get_benchmark("rewardbench2").aggregate(items, judged)
    assert shares.headline == "overall_without_ties_partial"
    assert figure(shares, "math_partial") == 0
    assert figure(shares, shares.headline) == pytest.approx(4 / 5)
    assert math.isnan(figure(shares, "ties_partial"))
    assert math.isnan(figure(shares, "overall_partial"))
    assert "Ties are scored by numbers only" in shares.notes[-1]


def published_ties(ref: dict[int, tuple], tied: dict[int, tuple]) -> float:
    """The published formula from (right scores, wrong scores) of each question, in numpy."""

    def gap(row):
        return min(row[0]) - max(row[1])

    both = sorted(ref.keys() & tied.keys())
    spread = np.array([max(tied[q][0]) - min(tied[q][0]) for q in both])
    gaps = np.array([gap(tied[q]) for q in both])
    smaller = np.minimum(gaps, [gap(ref[q]) for q in both])
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.nan_to_num(np.tanh(smaller / spread - 1), nan=0.0)
    accuracy = [np.mean([gap(row) > 0 for row in rows.values()]) for rows in (tied, ref)]
    return (
        0.3 * accuracy[0]
        + 0.3 * accuracy[1]
        + 0.2 * np.mean(gaps > spread)
        + 0.2 * np.mean(smaller > spread)
        + 0.01 * np.mean(margin)
    )


@settings(max_examples=100)
@given(st.lists(st.lists(score, min_size=13, max_size=13), min_size=1, max_size=5))
def test_ties_as_the_publisher_computes_them(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("ties")
    rows = [publishers.rewardbench2_row("Ties", f"ref:{i}", 1, 4) for i in range(len(numbers))]
    rows += [publishers.rewardbench2_row("Ties", f"tied:{i}", 3, 5) for i in range(len(numbers))]
    items = get_benchmark("rewardbench2").load(lines(folder / "x.jsonl", rows))
    values = [row[:5] for row in numbers] + [row[5:] for row in numbers]
    found = figures_of("rewardbench2", items, [scored(i, v) for i, v in zip(items, values, strict=True)])
    ref = {i: (row[:1], row[1:5]) for i, row in enumerate(numbers)}
    tied = {i: (row[5:8], row[8:]) for i, row in enumerate(numbers)}
    assert found["ties_partial"] == pytest.approx(published_ties(ref, tied), abs=1e-12)
    assert found["overall_partial"] == pytest.approx(found["ties_partial"], abs=1e-12)


def test_ties_by_hand(tmp_path):
    rows = [
        publishers.rewardbench2_row("Ties", "ref:1", 1, 2),
        publishers.rewardbench2_row("Ties", "tied:1", 2, 2),
    ]
    items = get_benchmark("rewardbench2").load(lines(tmp_path / "x.jsonl", rows))
    # tied: the right ones 5 and 4 (spread 1), the best wrong one 2 (gap 2); ref: gap 0.5, smaller than the spread
    found = figures_of("rewardbench2", items, [scored(items[0], [2.5, 2, 1]), scored(items[1], [5, 4, 2, 0])])
    assert found["ties_partial"] == pytest.approx(0.3 + 0.3 + 0.2 + 0 + 0.01 * math.tanh(0.5 / 1 - 1))
    missing = [scored(items[0], [2.5, None, 1]), scored(items[1], [5, 4, 2, 0])]
    assert figures_of("rewardbench2", items, missing)["ties_partial"] == pytest.approx(0.3 + 0.2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (publishers.rewardbench2_row("Ties", "1"), "neither ref:NUMBER nor tied:NUMBER"),
        (publishers.rewardbench2_row("Ties", "ref:1", 2), "a row ref: has one"),
        (publishers.rewardbench2_row("Math", "1", 2), "only Ties has more than one"),
        (publishers.rewardbench2_row("Chat", "1"), "subset is none of"),
    ],
)
def test_rewardbench2_a_row_not_as_published_is_an_error(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        get_benchmark("rewardbench2").load(lines(tmp_path / "x.jsonl", [row]))


def test_the_files_of_the_hub_give_the_same_items(tmp_path):
    """Parquet with lists, and the split `raw` beside the one that counts."""
    benchmark = get_benchmark("rewardbench2")
    rows = [publishers.rewardbench2_row("Focus", str(i)) for i in range(3)]
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
    assert benchmark.load(folder) == benchmark.load(lines(tmp_path / "test.jsonl", rows))
    for split, subset in (("filtered", "donotanswer"), ("raw", "shp")):
        table = pa.Table.from_pylist([publishers.rewardbench_row(subset)])
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    assert [item.tags["subset"] for item in get_benchmark("rewardbench").load(folder)] == ["donotanswer"]
