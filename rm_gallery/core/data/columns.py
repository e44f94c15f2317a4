"""Samples as Arrow columns: the one place that knows the schema of an exported Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rm_gallery.core.data.samples import Pair, Sample

if TYPE_CHECKING:
    import pyarrow as pa

DICTIONARY_COLUMNS = (
    "input.list.element.role",
    "data_source",
    "task_category",
    "preferred",
    "metadata.split",
    "metadata.order",
    "metadata.preferred",
)
"""Columns of few values. The texts are all different, and a dictionary of them would only cost time."""


class Columns:
    """Turns lists of samples into Arrow tables of one schema.

    Args:
        kind: `pointwise` or `pairwise`.
        labels: names of the label columns (pointwise; pairwise has its own two).
        metadata: names of the text fields of `metadata`, beyond `split` and what a pair adds.
    """

    def __init__(self, kind: str, labels: Sequence[str], metadata: Sequence[str] = ()) -> None:
        import pyarrow as pa

        self.pairwise = kind == "pairwise"
        self.labels = ("preferred", "preference_strength") if self.pairwise else tuple(labels)
        self.metadata = ("split", *(("group", "order") if self.pairwise else ()), *metadata)
        verdict = [("preferred", pa.string()), ("preference_strength", pa.int64())]
        flat = verdict if self.pairwise else [(name, pa.int64()) for name in self.labels]
        label = pa.struct([("is_preferred", pa.bool_())] if self.pairwise else flat)
        output = pa.struct([("content", pa.string()), ("label", label)])
        message = pa.struct([("role", pa.string()), ("content", pa.string())])
        notes = [(name, pa.string()) for name in self.metadata] + (verdict if self.pairwise else [])
        self.schema = pa.schema(
            [
                ("unique_id", pa.string()),
                ("input", pa.list_(message)),
                ("output", pa.list_(output) if self.pairwise else output),
                ("data_source", pa.string()),
                ("task_category", pa.string()),
                ("metadata", pa.struct(notes)),
                *flat,
            ]
        )

    def table(self, samples: Sequence[Sample | Pair]) -> pa.Table:
        """`samples`, all of this kind, as a table of `schema`."""
        import pyarrow as pa

        rows: Any = samples  # all of one kind, which the caller promises and the schema decides
        schema = self.schema
        messages = [message for row in rows for message in row.input]
        turns = pa.StructArray.from_arrays(
            [
                _texts([message.role for message in messages]),
                _texts([message.content for message in messages]),
            ],
            fields=list(schema.field("input").type.value_type),
        )
        offsets = _integers([0, *accumulate(len(row.input) for row in rows)], 32)
        flat = self._flat(rows)
        notes = [_texts([row.metadata.get(name) for row in rows]) for name in self.metadata]
        if self.pairwise:
            notes += flat
        return pa.Table.from_arrays(
            [
                _texts([row.unique_id for row in rows]),
                pa.ListArray.from_arrays(offsets, turns, type=schema.field("input").type),
                self._outputs(rows, flat),
                _texts([row.data_source for row in rows]),
                _texts([row.task_category for row in rows]),
                pa.StructArray.from_arrays(notes, fields=list(schema.field("metadata").type)),
                *flat,
            ],
            schema=schema,
        )

    def row(self, sample: Sample | Pair) -> dict[str, Any]:
        """`sample` as a row for JSON, with the same keys as the table has columns."""
        row = sample.to_row()
        row["metadata"] = {**dict.fromkeys(self.metadata), **row["metadata"]}
        if not self.pairwise:
            row["output"]["label"] = {name: row.get(name) for name in self.labels}
            row.update(row["output"]["label"])
        return row

    def _flat(self, rows: Any) -> list[pa.Array]:
        if self.pairwise:
            return [_texts([row.preferred for row in rows]), _integers([row.strength for row in rows])]
        return [_integers([row.labels.get(name) for row in rows]) for name in self.labels]

    def _outputs(self, rows: Any, flat: list[pa.Array]) -> pa.Array:
        import pyarrow as pa

        kind = self.schema.field("output").type
        output = kind.value_type if self.pairwise else kind
        if self.pairwise:
            contents = [text for row in rows for text in (row.response_a, row.response_b)]
            label = [_flags([row.preferred == side for row in rows for side in "AB"])]
        else:
            contents = [row.response for row in rows]
            label = flat
        built = pa.StructArray.from_arrays(
            [_texts(contents), pa.StructArray.from_arrays(label, fields=list(output.field("label").type))],
            fields=list(output),
        )
        if not self.pairwise:
            return built
        return pa.ListArray.from_arrays(_integers(range(0, 2 * len(rows) + 1, 2), 32), built, type=kind)


# Arrays are built from their buffers: pa.array grows its own by doubling, which for texts of this length
# takes twice as long, and it imports pandas where that is installed.


def _texts(values: Sequence[str | None]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, encoded), np.int32, len(encoded)), out=offsets[1:])
    buffers = [_validity(values), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def _integers(values: Sequence[int | None], bits: int = 64) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    dense = np.fromiter((value or 0 for value in values), np.dtype(f"int{bits}"), len(values))
    kind = pa.int64() if bits == 64 else pa.int32()
    return pa.Array.from_buffers(kind, len(values), [_validity(values), pa.py_buffer(dense)])


def _flags(values: Sequence[bool]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    packed = np.packbits(np.asarray(values, bool), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(packed)])


def _validity(values: Sequence[Any]) -> pa.Buffer | None:
    """The bitmap that marks nulls, or None where there are none."""
    import numpy as np
    import pyarrow as pa

    if None not in values:
        return None
    known = np.fromiter((value is not None for value in values), bool, len(values))
    return pa.py_buffer(np.packbits(known, bitorder="little"))
