"""Whatever holds items is a dataset, and every item keeps its place."""

from __future__ import annotations

import asyncio
import gzip
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders import GraderError
from rm_gallery.core.runner import GraderConfig, GradingRunner, scores
from rm_gallery.core.runner.dataset import open_dataset
from tests.runner.graders import Length

ROWS = [{"response": "x" * i, "output": {"content": "y" * i}} for i in range(600)]


def grade(dataset, mapper=None):
    return GradingRunner({"a": GraderConfig(Length(), mapper)}).run(dataset)["a"]


async def later(rows):
    for row in rows:
        await asyncio.sleep(0)
        yield row


class Sequence:
    """Neither a list nor an iterator, as `datasets.Dataset`."""

    def __len__(self):
        return len(ROWS)

    def __iter__(self):
        return iter(ROWS)


@pytest.fixture
def files(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet", row_group_size=100)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "rows.jsonl").write_text(lines)
    (tmp_path / "other.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return tmp_path


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "other.jsonl.gz", "rows.json"])
def test_a_file_is_its_rows(files, name):
    for path in (files / name, str(files / name)):
        assert scores(grade(path, {"response": "output.content"})).tolist() == list(range(600))


@pytest.mark.parametrize(
    "dataset",
    [ROWS, tuple(ROWS), Sequence(), pd.DataFrame(ROWS).to_dict("records")],
    ids=["list", "tuple", "sized", "records"],
)
def test_anything_that_holds_items_is_a_dataset(dataset):
    assert open_dataset(dataset).total == 600
    assert scores(grade(dataset)).tolist() == list(range(600))


def test_iterators_are_datasets_too():
    assert scores(grade(iter(ROWS))).tolist() == list(range(600))
    assert scores(grade(row for row in ROWS)).tolist() == list(range(600))
    assert scores(grade(later(ROWS))).tolist() == list(range(600))
    assert open_dataset(later(ROWS)).total is None


def test_a_parquet_file_says_how_many_rows_it_has(files):
    assert open_dataset(files / "rows.parquet").total == 600
    assert open_dataset(files / "rows.jsonl").total is None


@settings(max_examples=20)
@given(st.lists(st.sampled_from(['{"response": "abc"}', "{broken", "[1]", '"text"', " "]), max_size=12))
def test_a_line_that_is_no_row_is_an_error_in_its_place(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines) or "\n")
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    results = grade(path)
    assert len(results) == len(kept)
    for (number, line), result in zip(kept, results, strict=True):
        if line.startswith('{"'):
            assert result.score == 3
        else:
            assert isinstance(result, GraderError)
            assert result.kind == "data"
            assert f"rows.jsonl:{number}: not a" in result.error


@pytest.mark.parametrize(
    ("dataset", "error", "said"),
    [
        ("/there/is/none.parquet", DataError, "does not exist"),
        ({"response": "x"}, ConfigError, "one mapping"),
        (pd.DataFrame(ROWS), ConfigError, "to_dict"),
        (3, ConfigError, "is a int"),
    ],
    ids=["nothing", "mapping", "frame", "number"],
)
def test_what_is_no_dataset_is_refused(dataset, error, said):
    with pytest.raises(error, match=said):
        grade(dataset)


@settings(max_examples=30)
@given(st.integers(0, 40), st.booleans())
def test_a_dataset_that_breaks_is_graded_up_to_there_and_then_raises(tmp_path_factory, good, asynchronous):
    """Nothing that was paid for is lost: it is in the journal, and a stream has given it back."""

    def rows():
        yield from ROWS[:good]
        raise OSError("the line is dead")

    async def broken():
        for row in ROWS[:good]:
            yield row
        raise OSError("the line is dead")

    path = tmp_path_factory.mktemp("journal") / "j"
    runner = GradingRunner({"a": Length()}, journal=path, max_concurrency=7)
    with pytest.raises(OSError, match="the line is dead"):
        runner.run(broken() if asynchronous else rows())
    later = Length()
    streamed = []

    async def stream():
        again = GradingRunner({"a": later}, journal=path)
        async for index, results in again.arun_stream(rows(), window=5):
            streamed.append((index, results["a"].score))

    with pytest.raises(OSError, match="the line is dead"):
        asyncio.run(stream())
    assert streamed == [(i, i) for i in range(good)]
    assert later.asked == []


def test_a_dataset_is_closed_when_its_stream_is_left():
    closed = []

    def rows():
        try:
            yield from ROWS
        finally:
            closed.append("rows")

    async def leave(dataset, name):
        stream = GradingRunner({"a": Length()}).arun_stream(dataset, window=1)  # nobody waits for an item
        async for _ in stream:
            break
        await stream.aclose()
        assert closed[-1:] == [name]  # and not by the end of the loop

    async def slowly():
        try:
            async for row in later(ROWS):
                yield row
        finally:
            closed.append("slowly")

    asyncio.run(leave(rows(), "rows"))
    asyncio.run(leave(slowly(), "slowly"))


def test_a_dataset_is_closed_when_the_journal_cannot_be_opened(tmp_path):
    (tmp_path / "j").write_text("not a journal")
    closed = []

    def rows():
        try:
            yield {}
            yield {}
        finally:
            closed.append(True)

    dataset = rows()
    next(dataset)
    with pytest.raises(ConfigError):
        GradingRunner({"a": Length()}, journal=tmp_path / "j").run(dataset)
    assert closed == [True]
