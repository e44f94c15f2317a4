"""Figures of a benchmark from what each item adds to them: intervals, differences, tests, and the file.

Every figure is a ratio of two sums over items, or a weighted mean of such ratios, so a bootstrap replicate is a
weighted sum of per-cluster sums, as for the metrics of rows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from rm_gallery.core.errors import DataError
from rm_gallery.core.evaluate.agreement import Array, ratio
from rm_gallery.core.evaluate.benchmarks.base import Shares
from rm_gallery.core.evaluate.orders import ORDER_COLUMNS
from rm_gallery.core.evaluate.statistics import (
    RESAMPLES,
    Estimate,
    McNemar,
    mcnemar,
    resample_sums,
    with_interval,
)

_HEADER = b"rm_gallery.shares"


def share_estimates(shares: Shares, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Every column and average with its 95% interval, all from the same resamples of the clusters.

    `n` of a column is the sum of its denominators (comparisons, verdicts), of an average the number of units that
    have a part in it.
    """
    sums = _cluster_sums(shares)
    point, drawn = (
        _figures(shares, sums.sum(axis=0, keepdims=True)),
        _replicates(shares, sums, resamples, seed),
    )
    return {
        name: with_interval(
            float(value[0]), drawn[name], _over(shares, name), len(sums), _undefined(shares, name, point)
        )
        for name, value in point.items()
    }


def share_differences(
    shares: Shares, reference: Shares, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """`shares - reference` for every figure that both have, with the 95% interval of the paired difference.

    Raises:
        DataError: the two do not hold the same units.
    """
    reference = aligned_shares(reference, shares)
    ours, theirs = _cluster_sums(shares), _cluster_sums(reference)
    our_point = _figures(shares, ours.sum(axis=0, keepdims=True))
    their_point = _figures(reference, theirs.sum(axis=0, keepdims=True))
    our_draws = _replicates(shares, ours, resamples, seed)
    their_draws = _replicates(reference, theirs, resamples, seed)
    return {
        name: with_interval(
            float(value[0] - their_point[name][0]),
            our_draws[name] - their_draws[name],
            _over(shares, name),
            len(ours),
            _undefined(shares, name, our_point if np.isnan(value[0]) else their_point),
        )
        for name, value in our_point.items()
        if name in their_point
    }


def share_mcnemar(shares: Shares, reference: Shares, column: str) -> McNemar:
    """McNemar's exact test of a column in which each unit is right or wrong (`two_order_accuracy` of pairs).

    Raises:
        DataError: there is no such column in both, it is no 0 or 1 a unit, or the two do not hold the same units.
    """
    reference = aligned_shares(reference, shares)
    for side in (shares, reference):
        if column not in side.columns:
            raise DataError(f"{column!r} is not a column of both; the columns are {', '.join(side.columns)}")
        of = side.denominators.get(column)
        if of is not None and not np.isin(of[~np.isnan(side.columns[column])], (0, 1)).all():
            raise DataError(f"a unit adds several comparisons to {column!r}, and McNemar's test needs one")
    return mcnemar(shares.columns[column], reference.columns[column])


def aligned_shares(shares: Shares, other: Shares) -> Shares:
    """`shares` with its units in the order of `other`.

    Raises:
        DataError: the two do not hold the same units in the same clusters, or hold one twice.
    """
    position = {unit: i for i, unit in enumerate(shares.unit)}
    if len(position) != len(shares.unit) or sorted(shares.unit) != sorted(other.unit):
        raise DataError(
            f"the two evaluations hold different items ({len(shares.unit)} and {len(other.unit)}, matched by their "
            "id); a difference needs the same items judged twice"
        )
    order = [position[unit] for unit in other.unit]
    if tuple(shares.cluster[i] for i in order) != tuple(other.cluster):
        raise DataError("the two evaluations hold the same items with other prompts")
    return Shares(
        unit=other.unit,
        cluster=other.cluster,
        columns={name: values[order] for name, values in shares.columns.items()},
        averages=shares.averages,
        headline=shares.headline,
        notes=shares.notes,
        denominators={name: values[order] for name, values in shares.denominators.items()},
    )


def write_shares(path: str | os.PathLike[str], shares: Shares) -> None:
    """Write a Parquet file; the same shares give the same bytes. Never leaves a half-written file.

    Columns: `unit`, `cluster`, `value.NAME` for each figure, and its denominators, where they are not 1, as `of.NAME`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    header = {
        "columns": list(shares.columns),
        "denominators": list(shares.denominators),
        "averages": {name: dict(parts) for name, parts in shares.averages.items()},
        "headline": shares.headline,
        "notes": list(shares.notes),
    }
    numbers = [*shares.columns.values(), *shares.denominators.values()]
    arrays = [pa.array(shares.unit, pa.string()), pa.array(shares.cluster, pa.string())]
    arrays += [pa.array(np.asarray(values, dtype=np.float64)) for values in numbers]
    names = [
        "unit",
        "cluster",
        *map("value.{}".format, shares.columns),
        *map("of.{}".format, shares.denominators),
    ]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    metadata = {_HEADER: json.dumps(header, ensure_ascii=False)}
    pq.write_table(pa.table(arrays, names=names).replace_schema_metadata(metadata), temporary)
    temporary.replace(target)


def read_shares(path: str | os.PathLike[str]) -> Shares:
    """Read what `write_shares` wrote. Raises `DataError` where the file is something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    found = (table.schema.metadata or {}).get(_HEADER)
    if found is None:
        raise DataError(f"{path} is not a file of outcomes written by rmg eval --benchmark")
    header: dict[str, Any] = json.loads(found)
    return Shares(
        unit=tuple(table.column("unit").to_pylist()),
        cluster=tuple(table.column("cluster").to_pylist()),
        columns={name: table.column(f"value.{name}").to_numpy() for name in header["columns"]},
        averages=header["averages"],
        headline=header["headline"],
        notes=tuple(header["notes"]),
        denominators={name: table.column(f"of.{name}").to_numpy() for name in header["denominators"]},
    )


def _parts(shares: Shares, name: str) -> tuple[Array, Array]:
    """(numerators, denominators) of a column, 0 and 0 for a unit that has no part in it."""
    values = shares.columns[name]
    absent = np.isnan(values)
    of = shares.denominators.get(name, np.ones(len(values)))
    return np.where(absent, 0.0, values), np.where(absent, 0.0, of)


def _over(shares: Shares, name: str) -> int:
    if name in shares.columns:
        return round(float(_parts(shares, name)[1].sum()))
    parts = [_parts(shares, column)[1] > 0 for column in shares.averages[name]]
    return int(np.logical_or.reduce(parts).sum()) if parts else 0


def _cluster_sums(shares: Shares) -> Array:
    """Per-cluster sums, shape (clusters, 2C): the numerators of every column, then the denominators."""
    names, cluster = np.unique(np.asarray(shares.cluster, dtype=np.str_), return_inverse=True)
    parts = [_parts(shares, name) for name in shares.columns]
    sums = np.zeros((len(names), 2 * len(parts)))
    if parts:
        np.add.at(sums, cluster, np.stack([part[i] for i in (0, 1) for part in parts], axis=1))
    return sums


def _figures(shares: Shares, sums: Array) -> dict[str, Array]:
    """Every figure of B resamples from their sums of shape (B, 2C)."""
    size = len(shares.columns)
    means = ratio(sums[:, :size], sums[:, size:])
    found = {name: means[:, i] for i, name in enumerate(shares.columns)}
    averages = {}
    for name, weights in shares.averages.items():
        # by hand, so that the order of the sum is fixed
        total = sum((weight * found[column] for column, weight in weights.items()), np.zeros(len(sums)))
        averages[name] = ratio(total, np.full(len(sums), float(sum(weights.values()))))
    return {**found, **averages}


def _replicates(shares: Shares, sums: Array, resamples: int, seed: int) -> dict[str, Array]:
    if len(sums) < 2:
        return {name: np.array([np.nan]) for name in (*shares.columns, *shares.averages)}
    return _figures(shares, resample_sums(sums, resamples, seed))


def _undefined(shares: Shares, name: str, point: dict[str, Array]) -> str:
    if name in shares.averages:
        missing = [column for column in shares.averages[name] if np.isnan(point[column][0])]
        return f"undefined: there is no value of {', '.join(missing)}" if missing else "its weights sum to 0"
    return ORDER_COLUMNS.get(name, "no item has a part in it")
