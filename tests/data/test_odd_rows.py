"""Odd files and rows: a sentence that says where, and never a text or a number that nobody wrote."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rm_gallery.core.data import describe_files
from rm_gallery.core.data.converters import Converter, register_converter
from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import Message, Pair, Sample, conversation
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.train import load_config

from . import helpers

BOM = "\ufeff"


@pytest.mark.parametrize(
    "content", [None, 3, [{"type": "text", "text": "hi"}]], ids=["null", "a number", "parts of a message"]
)
@pytest.mark.parametrize("where", [0, 1, 2], ids=["first", "middle", "last"])
def test_a_turn_without_a_text_is_none(content, where):
    """`str` of it would be asked about: "None" is a query like any other."""
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    turns[where]["content"] = content
    with pytest.raises(
        DataError, match="row 7: every message of `input` needs a `role` and a `content`, both texts"
    ):
        conversation({"input": turns, "unique_id": "row 7"})


@pytest.mark.parametrize(
    "output",
    [5, {"content": "x", "label": 4}, [{"content": "x", "label": [1]}], [3]],
    ids=["a number", "a bare label", "a list of labels", "a list of numbers"],
)
def test_an_output_of_another_form_is_a_sentence(output):
    with pytest.raises(DataError, match="row 7: "):
        Sample.from_row({"input": "q", "output": output, "unique_id": "row 7"})


def test_a_null_column_does_not_hide_what_metadata_says():
    row = Pair((Message("user", "q"),), "a", "b", "B", 2).to_row()
    for name in ("preferred", "preference_strength"):
        row[name] = None
    found = Pair.from_row(row)
    assert (found.preferred, found.strength) == ("B", 2)
    row["preferred"] = []
    with pytest.raises(DataError, match=r"`preferred` is \[\]"):
        Pair.from_row(row)
    assert Pair.unlabelled(row).response_b == "b"


def test_a_split_that_only_the_first_row_lacks_is_not_drawn_anew(tmp_path):
    """Held-out rows would be trained on."""
    rows = [{**row, "split": "train" if n % 2 else "test"} for n, row in enumerate(helpers.ratings(300))]
    path = helpers.write_lines(tmp_path / "a.jsonl", [*helpers.ratings(1, 900), *rows])
    with pytest.raises(DataError, match=r"300 of 301|split is given"):
        helpers.convert(path, tmp_path / "out")
    drawn = helpers.convert(path, tmp_path / "drawn", export={"split": "ratio"})
    assert sum(drawn.splits_rows().values()) == 301


@pytest.mark.parametrize(
    "written", [[1, 2, None], [1.0, 2.0, float("nan")]], ids=["whole", "a column with a gap"]
)
def test_preferred_as_a_number(tmp_path, written):
    """pandas makes 1.0 of 1 in a column in which one is missing."""
    rows = [{"q": f"q{i}", "l": "left", "r": "right", "w": written[i % 2]} for i in range(200)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "w": written[2]}]), path)
    columns = {"prompt": "q", "response_1": "l", "response_2": "r", "preferred": "w"}
    report = helpers.convert(path, tmp_path / "out", "columns_pairwise", configs={"columns": columns})
    assert report.skipped == {"w is missing": 1}
    assert {row["preferred"] for row in helpers.every(tmp_path / "out")} == {"A", "B"}


def test_a_reasoning_about_two_responses_is_refused_and_not_dropped(tmp_path):
    """It speaks of first and second, and a pair is asked about in both orders."""
    path = helpers.write_lines(tmp_path / "a.jsonl", [{"q": "q", "good": "a", "bad": "b", "why": "w"}])
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad", "reasoning": "why"}
    with pytest.raises(ConfigError, match=r"configs\.columns\.reasoning: known are prompt, chosen, rejected"):
        helpers.convert(path, tmp_path / "out", "columns_pairwise", configs={"columns": columns})


@register_converter("tests_halves")
class Halves(Converter):
    """Labels between two scores."""

    kind = "pointwise"
    label_names = ("helpfulness",)

    def parse(self, row):
        return Sample((Message("user", row["prompt"]),), row["response"], {"helpfulness": row["helpfulness"]})


@pytest.mark.parametrize("formats", [["parquet"], ["jsonl"]])
def test_a_label_between_two_scores_is_not_cut(tmp_path, formats):
    """Parquet's column would hold 2 of 2.5, JSON's 2.5."""
    rows = [helpers.rating(f"q{i}", helpfulness=3.0) for i in range(20)]
    path = helpers.write_lines(tmp_path / "a.jsonl", [*rows, helpers.rating("x", helpfulness=2.5)])
    with pytest.raises(
        DataError, match=r"gave the label 2\.5; exported labels are whole numbers \(.*a\.jsonl:21\)"
    ):
        helpers.convert(path, tmp_path / "out", "tests_halves", export={"formats": formats})
    path = helpers.write_lines(tmp_path / "b.jsonl", [*rows, helpers.rating("y", helpfulness=None)])
    assert helpers.convert(path, tmp_path / "whole", "tests_halves").splits_rows()["train"] > 0


# -- files


def test_the_mark_before_an_array_is_no_part_of_it(tmp_path):
    rows = helpers.ratings(30)
    (tmp_path / "a.json").write_text(BOM + json.dumps(rows), encoding="utf-8")
    assert sum(helpers.convert(tmp_path / "a.json", tmp_path / "out").splits_rows().values()) == 30
    exported = helpers.every(tmp_path / "out")
    (tmp_path / "b.json").write_text(BOM + json.dumps(exported), encoding="utf-8")
    assert load_rows(tmp_path / "b.json") == exported


def test_a_blank_line_before_json_lines(tmp_path):
    lines = "\n" + "".join(json.dumps(row) + "\n" for row in helpers.ratings(30))
    (tmp_path / "a.json").write_text(BOM + lines, encoding="utf-8")
    assert sum(helpers.convert(tmp_path / "a.json", tmp_path / "out").splits_rows().values()) == 30


def test_a_text_of_parquet_that_is_not_utf8_is_one_bad_row(tmp_path):
    rows = helpers.ratings(300)
    table = pa.Table.from_pylist(rows)
    texts = [row["response"].encode() for row in rows[:-1]] + [b"caf\xe9"]
    broken = pa.array(texts, pa.binary()).view(pa.string())
    column = table.schema.get_field_index("response")
    pq.write_table(table.set_column(column, "response", broken), tmp_path / "a.parquet")
    report = helpers.convert(tmp_path / "a.parquet", tmp_path / "out")
    assert report.skipped == {"a text is not UTF-8": 1}
    assert sum(report.splits_rows().values()) == 299
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_rows(tmp_path / "a.parquet")


def test_a_damaged_gz_is_a_sentence(tmp_path):
    packed = bytearray(gzip.compress("".join(json.dumps(row) + "\n" for row in helpers.ratings(99)).encode()))
    packed[40] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"a\.jsonl\.gz"):
        load_rows(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize("given", ["file", "option"])
def test_a_date_that_no_calendar_has_is_a_sentence(tmp_path, given):
    file = tmp_path / "a.yaml"
    file.write_text("output_dir: 2024-13-45\n" if given == "file" else "{}\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(file, [] if given == "file" else ["output_dir=2024-31-12"])


# -- what a judge has to beat


def test_scores_below_zero_are_scores(tmp_path):
    labels = [-1] * 50 + [0] * 30 + [1] * 20
    rows = [
        Sample((Message("user", f"q{i}"),), "a", {"mood": label}).to_row() for i, label in enumerate(labels)
    ]
    [found] = describe_files([helpers.write_lines(tmp_path / "a.jsonl", rows)])["files"]
    assert found["baselines"]["majority"] == {"label": -1, "accuracy": 0.5}


def test_scores_written_as_numbers_with_a_point_are_whole(tmp_path):
    rows = [Sample((Message("user", f"q{i}"),), "a", {"helpfulness": i % 4}).to_row() for i in range(40)]
    whole, pointed = (tmp_path / name for name in ("a.jsonl", "b.jsonl"))
    helpers.write_lines(whole, rows)
    for row in rows:
        row["output"]["label"]["helpfulness"] = float(row["helpfulness"])
    helpers.write_lines(pointed, rows)
    [one], [other] = (describe_files([path])["files"] for path in (whole, pointed))
    assert one | {"file": ""} == other | {"file": ""}
    rows[3]["output"]["label"]["helpfulness"] = "good"
    with pytest.raises(DataError, match=r"c\.jsonl:4: `helpfulness` is 'good', expected a number"):
        describe_files([helpers.write_lines(tmp_path / "c.jsonl", rows)])
