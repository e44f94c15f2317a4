"""Figures of benchmarks: ratios and averages, their intervals, differences and tests, and the file."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.benchmarks.base import Shares
from rm_gallery.core.evaluate.shares import (
    read_shares,
    share_differences,
    share_estimates,
    share_mcnemar,
    write_shares,
)

NAN = math.nan


def shares_of(columns, averages=None, cluster=None, headline=None, denominators=None):
    size = len(next(iter(columns.values())))
    return Shares(
        unit=tuple(f"item-{i}" for i in range(size)),
        cluster=tuple(cluster or (f"prompt-{i}" for i in range(size))),
        columns={name: np.array(values, dtype=float) for name, values in columns.items()},
        averages=averages or {},
        headline=headline or next(iter(columns)),
        denominators={name: np.array(of, dtype=float) for name, of in (denominators or {}).items()},
    )


def random_shares(size=60, seed=0):
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 5, size)
    right = rng.integers(0, 2, size).astype(float)
    columns = {
        "easy": np.where(rng.random(size) < 0.5, right, NAN),
        "hard": rng.integers(0, 2, size).astype(float),
        "pairs": np.where(of > 0, rng.binomial(of, 0.6), NAN),
    }
    return shares_of(
        columns,
        {"overall": {"easy": 2.0, "hard": 1.0, "pairs": 0.5}},
        [f"prompt-{i // 2}" for i in range(size)],
        "overall",
        {"pairs": of},
    )


part = st.one_of(
    st.just((NAN, 0)), st.integers(1, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
)


@settings(max_examples=150)
@given(st.lists(st.tuples(part, part), min_size=1, max_size=20), st.floats(0.1, 9), st.floats(0.1, 9))
def test_a_figure_is_a_ratio_of_sums_and_an_average_a_weighted_mean_of_them(rows, one, two):
    values, of = (np.array([[p[k] for p in row] for row in rows], dtype=float).T for k in (0, 1))
    columns = dict(zip("xy", values, strict=True))
    averages, denominators = {"both": {"x": one, "y": two}}, dict(zip("xy", of, strict=True))
    found = share_estimates(shares_of(columns, averages, None, None, denominators), resamples=2)
    expected = [np.nansum(v) / n.sum() if n.sum() else NAN for v, n in zip(values, of, strict=True)]
    for name, value in zip("xy", expected, strict=True):
        assert found[name].value == pytest.approx(value, abs=1e-12, nan_ok=True)
        assert found[name].n == denominators[name].sum()
    mean = np.average(expected, weights=[one, two])  # NaN where one is
    assert found["both"].value == pytest.approx(mean, abs=1e-12, nan_ok=True)
    assert found["both"].n == (of.max(axis=0) > 0).sum()
    for name, estimate in found.items():
        assert (estimate.reason is not None) == math.isnan(estimate.low), name


def test_the_interval_of_a_mean_is_that_of_resampling_its_clusters():
    shares = random_shares()
    rng = np.random.default_rng(3)
    clusters = [np.array([2 * i, 2 * i + 1]) for i in range(30)]
    picks = [np.concatenate([clusters[i] for i in rng.integers(0, 30, 30)]) for _ in range(4000)]
    pairs, of = shares.columns["pairs"], shares.denominators["pairs"]
    drawn = [np.nansum(pairs[p]) / of[p].sum() for p in picks]
    found = share_estimates(shares, resamples=4000)["pairs"]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.015)


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_the_items():
    shares = random_shares()
    order = np.random.default_rng(1).permutation(60)
    shuffled = dataclasses.replace(
        shares,
        unit=tuple(shares.unit[i] for i in order),
        cluster=tuple(shares.cluster[i] for i in order),
        columns={name: values[order] for name, values in shares.columns.items()},
        denominators={name: values[order] for name, values in shares.denominators.items()},
    )
    one, two = share_estimates(shares), share_estimates(shuffled)
    assert one == share_estimates(shares)
    for name, estimate in one.items():
        assert (two[name].low, two[name].high) == pytest.approx((estimate.low, estimate.high), abs=1e-12)


def test_what_has_no_value_says_why():
    shares = shares_of(
        {"easy": [1.0, 0.0], "hard": [NAN, NAN], "flip_rate": [NAN, NAN]}, {"overall": {"easy": 1, "hard": 1}}
    )
    found = share_estimates(shares)
    assert found["easy"].value == 0.5
    assert found["hard"].reason == "no item has a part in it"
    assert "both orders" in found["flip_rate"].reason
    assert found["overall"].reason == "undefined: there is no value of hard"
    one = share_estimates(shares_of({"easy": [1.0, 0.0]}, cluster=["p", "p"]))["easy"]
    assert (one.value, "one prompt" in one.reason) == (0.5, True)


def test_a_difference_is_paired_by_item_and_changes_sign_with_its_sides():
    one, two = random_shares(seed=0), random_shares(seed=1)
    forward, back = share_differences(one, two), share_differences(two, one)
    alone = share_estimates(one)["overall"]
    for name, found in forward.items():
        assert found.value == pytest.approx(-back[name].value, abs=1e-12)
        assert (found.low, found.high) == pytest.approx((-back[name].high, -back[name].low), abs=1e-12)
    for found in share_differences(one, one).values():
        assert (found.value, found.low, found.high) == (0, 0, 0)
    flipped = dataclasses.replace(
        two,
        unit=two.unit[::-1],
        cluster=two.cluster[::-1],
        columns={name: values[::-1] for name, values in two.columns.items()},
        denominators={name: values[::-1] for name, values in two.denominators.items()},
    )
    assert share_differences(one, flipped) == forward
    # a system that is right wherever the other is: the difference is surer than either figure
    better = dataclasses.replace(
        one, columns={**one.columns, "hard": np.maximum(one.columns["hard"], [1, 0] * 30)}
    )
    found, hard = share_differences(better, one)["hard"], share_estimates(one)["hard"]
    assert found.low > 0
    assert found.high - found.low < hard.high - hard.low
    assert not math.isnan(alone.low)


def test_only_figures_that_both_have_are_compared():
    one = shares_of({"easy": [1.0, 0.0], "hard": [1.0, 1.0]})
    two = shares_of({"easy": [0.0, 0.0], "other": [1.0, 1.0]})
    assert list(share_differences(one, two)) == ["easy"]


def test_differences_between_other_items_are_refused():
    one = shares_of({"easy": [1.0, 0.0]})
    with pytest.raises(DataError, match=r"different items \(3 and 2"):
        share_differences(one, shares_of({"easy": [1.0, 0.0, 1.0]}))
    with pytest.raises(DataError, match="other prompts"):
        share_differences(one, shares_of({"easy": [1.0, 0.0]}, cluster=["p", "p"]))
    twice = dataclasses.replace(one, unit=("item-0", "item-0"))
    with pytest.raises(DataError, match="different items"):
        share_differences(twice, twice)


def test_mcnemar_pairs_by_item_and_takes_only_right_or_wrong():
    one = shares_of({"right": [1, 1, 1, 1, 0, NAN]})
    two = shares_of({"right": [0, 0, 0, 1, 1, 1]})
    found = share_mcnemar(one, two, "right")
    assert (found.only_first, found.only_second, found.p) == (3, 1, 0.625)
    with pytest.raises(DataError, match="not a column"):
        share_mcnemar(one, two, "wrong")
    with pytest.raises(DataError, match="right or wrong"):
        share_mcnemar(one, shares_of({"right": [0.5] * 6}), "right")
    several = shares_of({"right": [1.0] * 6}, denominators={"right": [1.0] * 5 + [9.0]})
    with pytest.raises(DataError, match="several comparisons"):
        share_mcnemar(one, several, "right")


def test_shares_survive_their_file_and_the_same_ones_give_the_same_bytes(tmp_path):
    shares = dataclasses.replace(
        random_shares(), columns={**random_shares().columns, "unit": np.ones(60)}, notes=("Only chat. ½",)
    )
    for name in ("one", "two"):
        write_shares(tmp_path / name / "outcomes.parquet", shares)
    one, two = (tmp_path / name / "outcomes.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    read = read_shares(one)
    for name in ("unit", "cluster", "averages", "headline", "notes"):
        assert getattr(read, name) == getattr(shares, name)
    for found, written in ((read.columns, shares.columns), (read.denominators, shares.denominators)):
        assert list(found) == list(written)
        for name, values in written.items():
            np.testing.assert_array_equal(found[name], values)
    assert share_estimates(read) == share_estimates(shares)
    assert [path.name for path in one.parent.iterdir()] == ["outcomes.parquet"]


def test_a_file_of_something_else_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"unit": ["x"]}), tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"not parquet")
    for name, problem in (("x", "not a file of outcomes"), ("y", "cannot be read"), ("z", "cannot be read")):
        with pytest.raises(DataError, match=problem):
            read_shares(tmp_path / f"{name}.parquet")


def test_shares_that_do_not_fit_together_are_refused():
    with pytest.raises(DataError, match="hard differ"):
        shares_of({"easy": [1.0, 0.0], "hard": [1.0]})
    with pytest.raises(DataError, match="not given: hard"):
        shares_of({"easy": [1.0]}, {"overall": {"easy": 1, "hard": 1}})
    with pytest.raises(DataError, match="not given: overall"):
        shares_of({"easy": [1.0]}, headline="overall")
