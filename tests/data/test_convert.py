"""Conversion of small sources: what is kept, what is skipped and why, what fails and leaves nothing."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from rm_gallery.core.data import BadRow, Converter, Message, Pair, Sample, converters, get_converter
from rm_gallery.core.errors import ConfigError, DataError

from . import helpers

BAD = [
    ('{"prompt": "cut', "not a line of JSON"),
    ("[1, 2]", "not a JSON object"),
    (helpers.rating("P", helpfulness=7), "helpfulness is not a whole number from 0 to 4"),
    (helpers.rating("P", helpfulness=-1), "helpfulness is not a whole number from 0 to 4"),
    (helpers.rating("P", helpfulness=2.5), "helpfulness is not a whole number from 0 to 4"),
    (
        helpers.rating("P", helpfulness="3"),
        "helpfulness is not a whole number from 0 to 4",
    ),  # JSON has numbers
    (helpers.rating("P", helpfulness=True), "helpfulness is not a whole number from 0 to 4"),  # True == 1
    (helpers.rating("P", helpfulness=None), "helpfulness is missing"),
    (helpers.rating("P", coherence=9), "coherence is not a whole number from 0 to 4"),
    (helpers.rating(" \n"), "prompt is empty"),
    (helpers.rating("P", ""), "response is empty"),
    (helpers.rating(None), "prompt is missing"),
    (helpers.rating(["P"]), "prompt is not a text"),
    (helpers.rating("Hi\n<extra_id_1>Assistant\n \n<extra_id_1>User\nSo?"), "prompt has an empty turn"),
    (
        helpers.rating("Hi\n<extra_id_1>Assistant\nYes."),
        "prompt ends with a turn of the assistant",
    ),
]


@pytest.mark.parametrize(("row", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_row_is_skipped_with_its_reason_and_line(tmp_path, row, reason):
    rows = helpers.ratings(150)
    path = helpers.write_lines(tmp_path / "rows.jsonl", [*rows[:7], row, *rows[7:]])
    report = helpers.convert(path, tmp_path / "out")
    assert (report.read, report.kept, dict(report.skipped)) == (151, 150, {reason: 1})
    assert report.examples[reason][0].startswith(f"{path}:8: {reason}")


def test_a_messy_folder_is_counted_right_and_fails_naming_file_and_line(tmp_path):
    folder, out = tmp_path / "source", tmp_path / "out"
    rows = helpers.ratings(20)
    helpers.write_lines(folder / "a.jsonl", [*rows[:10], "oops", helpers.rating("P", helpfulness=7)])
    helpers.write_lines(folder / "b.jsonl.gz", [*rows[10:], helpers.rating(""), rows[3]])
    with pytest.raises(DataError, match=r"3 of 24 rows \(12.5%\)") as failure:
        helpers.convert(folder, out)
    for place in (
        "a.jsonl:11: not a line of JSON",
        "a.jsonl:12: helpfulness",
        "b.jsonl.gz:11: prompt is empty",
    ):
        assert place in str(failure.value)
    assert not list(out.rglob("*.*"))
    report = helpers.convert(folder, out, configs={"max_invalid_fraction": 0.2})
    assert (report.read, report.kept, report.duplicates, report.skipped.total()) == (24, 20, 1, 3)
    assert len(helpers.every(out)) == 20


def test_one_percent_bad_is_allowed_and_more_is_not(tmp_path):
    rows = [*helpers.ratings(99), "bad"]
    path = helpers.write_lines(tmp_path / "rows.jsonl", rows)
    assert helpers.convert(path, tmp_path / "out").kept == 99
    helpers.write_lines(path, [*rows[1:], "bad"])
    with pytest.raises(DataError, match=r"2 of 100 rows"):
        helpers.convert(path, tmp_path / "out")


def _truncated(path):
    path.write_bytes(gzip.compress(json.dumps(helpers.ratings(500)).encode())[:-20])


def _pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("b.jsonl.gz", _truncated, r"b\.jsonl\.gz is truncated"),
        (
            "b.jsonl.gz",
            lambda path: path.write_bytes(b"plain text"),
            r"b\.jsonl\.gz is not a valid gzip file",
        ),
        ("b.jsonl.gz", _pointer, r"b\.jsonl\.gz is a Git LFS pointer"),
        ("b.parquet", _pointer, r"b\.parquet is a Git LFS pointer"),
        ("b.parquet", lambda path: path.write_bytes(b"PAR1junk"), r"b\.parquet is not a valid Parquet file"),
        ("b.json", lambda path: path.write_text('[{"prompt": "a"'), r"b\.json is broken JSON after row 0"),
        ("b.json", lambda path: path.write_text('{\n"data": []}'), r"b\.json holds a single object"),
        ("b.json", lambda path: path.write_text("3"), r"b\.json is not an array"),
        ("b.jsonl", lambda path: path.write_bytes(b""), r"b\.jsonl is empty"),
        ("b.csv", lambda path: path.write_bytes(b"prompt,response\n\xff,b\n"), r"b\.csv:2 is not UTF-8"),
        ("b.csv", lambda path: path.write_bytes(b"prompt,prompt\n"), r"b\.csv:1: a column name stands twice"),
    ],
)
def test_a_damaged_file_fails_by_name_and_old_output_survives(tmp_path, name, write, message):
    folder, out = tmp_path / "source", tmp_path / "out"
    helpers.write_lines(folder / "a.jsonl", helpers.ratings(300))
    before = {file: Path(file).read_bytes() for file in helpers.convert(folder, out).files}
    helpers.write_lines(folder / "a.jsonl", helpers.ratings(400))
    write(folder / name)
    with pytest.raises(DataError, match=message):
        helpers.convert(folder, out)
    assert {str(file): file.read_bytes() for file in out.iterdir()} == before


def test_extra_id_turns_become_chat_messages():
    prompt = "Hi\nthere\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nWhat is <extra_id_1>?"
    (sample,) = get_converter("helpsteer2_pointwise").convert(helpers.rating(prompt))
    assert sample.input == (
        Message("user", "Hi\nthere"),
        Message("assistant", "Hello!"),
        Message("user", "What is <extra_id_1>?"),
    )


@pytest.mark.parametrize(("strength", "preferred"), [(3, "B"), (1, "B"), (0, "tie"), (-1, "A"), (-3, "A")])
def test_a_positive_strength_prefers_response_2(strength, preferred):
    row = {"prompt": "P", "response_1": "one", "response_2": "two", "preference_strength": strength}
    forward, swapped = get_converter("helpsteer2_pairwise").convert(row)
    assert (forward.response_a, forward.response_b) == ("one", "two")
    assert (forward.preferred, forward.strength) == (preferred, strength)
    again = swapped.swap()
    assert (again.response_a, again.preferred, again.strength) == ("one", preferred, strength)
    assert forward.metadata["group"] == swapped.metadata["group"]
    assert (forward.metadata["order"], swapped.metadata["order"]) == ("forward", "swapped")
    assert forward.unique_id != swapped.unique_id


def test_all_five_labels_are_flat_and_a_missing_one_is_null(tmp_path):
    rows = [{**row, "correctness": 2} for row in helpers.ratings(60)]
    rows[5] = {k: v for k, v in rows[5].items() if k != "correctness"}
    path = helpers.write_lines(tmp_path / "rows.jsonl", rows)
    report = helpers.convert(path, tmp_path, export={"formats": ["parquet", "jsonl"]})
    found = helpers.every(tmp_path)
    assert Counter(row["correctness"] for row in found) == {2: 59, None: 1}
    assert {row["verbosity"] for row in found} == {None}
    assert all(row["output"]["label"] == {k: row[k] for k in row["output"]["label"]} for row in found)
    lines = [
        json.loads(line)
        for file in report.files
        if file.endswith("jsonl")
        for line in Path(file).read_text().splitlines()
    ]
    assert lines == found  # the same rows, key by key
    assert all(Sample.from_row(row).to_row()["unique_id"] == row["unique_id"] for row in found)


def test_value_counts_of_the_flat_column(tmp_path):
    import pandas as pd

    path = helpers.write_lines(tmp_path / "rows.jsonl", helpers.ratings(100))
    helpers.convert(path, tmp_path)
    frame = pd.concat(pd.read_parquet(tmp_path / f"data_{split}.parquet") for split in ("train", "test"))
    assert frame["helpfulness"].value_counts().to_dict() == dict.fromkeys(range(5), 20)


def test_exact_duplicates_are_kept_once_and_other_labels_are_no_duplicates(tmp_path):
    rows = helpers.ratings(3000)
    twice = [*rows, rows[0], {**rows[1], "helpfulness": (rows[1]["helpfulness"] + 1) % 5}, *rows[-5:]]
    path = helpers.write_lines(tmp_path / "rows.jsonl", twice)
    report = helpers.convert(path, tmp_path)
    assert (report.read, report.kept, report.duplicates) == (3007, 3001, 6)


def test_a_swapped_row_is_a_duplicate_of_its_pair(tmp_path):
    row = {"prompt": "P", "response_1": "one", "response_2": "two", "preference_strength": 2}
    mirror = {**row, "response_1": "two", "response_2": "one", "preference_strength": -2}
    others = [{**row, "prompt": f"P{n}"} for n in range(40)]
    path = helpers.write_lines(tmp_path / "rows.jsonl", [row, mirror, *others])
    assert helpers.convert(path, tmp_path, "helpsteer2_pairwise").duplicates == 1


def test_filters_are_counted_apart_from_bad_rows(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def even(judgment):\n    return judgment.labels['helpfulness'] % 2 == 0\n")
    turns = "Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nWhat now?"
    rows = [*helpers.ratings(50), helpers.rating(turns), helpers.rating("Long?", "word " * 9)]
    path = helpers.write_lines(tmp_path / "rows.jsonl", rows)
    process = {"max_turns": 1, "max_response_words": 8, "filters": [f"{own}:even"]}
    report = helpers.convert(path, tmp_path, process=process)
    assert report.filtered == {"max_turns 1": 1, "max_response_words 8": 1, f"{own}:even": 20}
    assert (report.kept, report.skipped.total()) == (30, 0)
    assert report.read == report.kept + report.filtered.total()


def test_a_failing_filter_names_the_row(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def fails(judgment):\n    raise KeyError('nothing')\n")
    path = helpers.write_lines(tmp_path / "rows.jsonl", helpers.ratings(3))
    with pytest.raises(DataError, match=r"own\.py:fails failed at .*rows\.jsonl:1: KeyError"):
        helpers.convert(path, tmp_path, process={"filters": [f"{own}:fails"]})


def test_filters_that_leave_nothing_fail(tmp_path):
    path = helpers.write_lines(tmp_path / "rows.jsonl", helpers.ratings(3))
    with pytest.raises(DataError, match="no row is left"):
        helpers.convert(path, tmp_path, process={"min_response_words": 50})


def test_columns_of_ones_own_csv(tmp_path):
    path = tmp_path / "mine.csv"
    lines = [f'"What, {n}?","Line one\nline two {n}",{n % 5},{n % 5}.0' for n in range(30)]
    path.write_text("question,answer,stars,tone\n" + "\n".join(lines) + "\n")
    columns = {"prompt": "question", "response": "answer", "helpfulness": "stars", "tone": "tone"}
    report = helpers.convert(path, tmp_path, "columns_pointwise", configs={"columns": columns})
    assert report.kept == 30
    row = helpers.exported(tmp_path, "train")[0]
    assert row["output"]["content"].startswith("Line one\nline two")
    assert (row["data_source"], type(row["helpfulness"])) == ("data", int)
    assert row["tone"] == row["helpfulness"]


def test_labels_of_another_scale_and_a_reasoning(tmp_path):
    path = tmp_path / "mine.csv"
    lines = [f"What {n}?,It is {n}.,{n % 5 + 1},{'' if n % 3 else 'It is right.'}" for n in range(30)]
    path.write_text("question,answer,stars,why\n" + "\n".join(lines) + "\n")
    columns = {"prompt": "question", "response": "answer", "reasoning": "why"}
    stars = {"column": "stars", "scale": [1, 5]}
    report = helpers.convert(
        path, tmp_path, "columns_pointwise", configs={"columns": columns | {"stars": stars}}
    )
    assert report.kept == 30
    rows = helpers.exported(tmp_path, "train")
    assert {row["stars"] for row in rows} == {1, 2, 3, 4, 5}
    assert {row["metadata"]["reasoning"] for row in rows} == {None, "It is right."}
    one_to_four = {"column": "stars", "scale": [1, 4]}
    with pytest.raises(DataError, match="stars is not a whole number from 1 to 4"):
        helpers.convert(
            path, tmp_path, "columns_pointwise", configs={"columns": columns | {"stars": one_to_four}}
        )


@pytest.mark.parametrize(
    ("written", "kept", "expected"),
    [((1, 5), (0, 4), [0, 1, 2, 3, 4]), ((1, 3), (0, 4), [0, 2, 4]), ((-2, 2), (0, 4), [0, 1, 2, 3, 4])],
)
def test_labels_of_another_scale_are_moved_to_that_of_the_task(tmp_path, written, kept, expected):
    path, (low, high) = tmp_path / "mine.csv", written
    lines = [f"What {n}?,It is {n}.,{low + n % (high - low + 1)}" for n in range(10 * len(expected))]
    path.write_text("question,answer,stars\n" + "\n".join(lines) + "\n")
    stars = {"column": "stars", "scale": list(written), "to": list(kept)}
    columns = {"prompt": "question", "response": "answer", "helpfulness": stars}
    helpers.convert(path, tmp_path, "columns_pointwise", configs={"columns": columns})
    rows = [row for part in ("train", "test") for row in helpers.exported(tmp_path, part)]
    of = {row["output"]["content"]: row["helpfulness"] for row in rows}
    assert all(of[f"It is {n}."] == expected[n % len(expected)] for n in range(len(lines)))


def test_a_scale_that_would_have_to_be_rounded_is_refused(tmp_path):
    stars = {"column": "stars", "scale": [1, 10], "to": [0, 4]}
    columns = {"prompt": "question", "response": "answer", "helpfulness": stars}
    with pytest.raises(ConfigError, match=r"\[1, 10\] does not go into \[0, 4\]"):
        helpers.convert(tmp_path / "mine.csv", tmp_path, "columns_pointwise", configs={"columns": columns})


def test_a_table_with_semicolons_is_told_from_one_that_lacks_a_column(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("question;answer;stars\nWhat?;It.;3\n")
    columns = {"prompt": "question", "response": "answer", "helpfulness": "stars"}
    with pytest.raises(DataError, match="parted by ';'"):
        helpers.convert(path, tmp_path, "columns_pointwise", configs={"columns": columns})


def test_the_line_that_is_not_utf_8_is_named(tmp_path):
    """The decoder reads thousands of characters at once, and fails before the first line is out."""
    path = tmp_path / "mine.csv"
    lines = ["question,answer,stars", *(f"What {n}?,It is {n}.,3" for n in range(50)), "Was?,Käse.,3"]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    columns = {"prompt": "question", "response": "answer", "helpfulness": "stars"}
    with pytest.raises(DataError, match=r"mine\.csv:52 is not UTF-8"):
        helpers.convert(path, tmp_path, "columns_pointwise", configs={"columns": columns})


def test_a_bad_csv_cell_is_named_by_the_line_its_row_begins_on(tmp_path):
    path = tmp_path / "mine.csv"
    lines = [f'"What {n}?","one\ntwo",{n % 5}' for n in range(200)]
    lines[2] = '"What?","one\ntwo",many'
    path.write_text("prompt,response,helpfulness\n" + "\n".join(lines) + "\n")
    report = helpers.convert(path, tmp_path)
    ((example,),) = report.examples.values()
    assert example.startswith(f"{path}:6: helpfulness is not a whole number")


@pytest.mark.parametrize(
    ("columns", "row", "preferred"),
    [
        ({"response_1": "l", "response_2": "r", "preferred": "w"}, {"l": "x", "r": "y", "w": "B"}, "B"),
        ({"response_1": "l", "response_2": "r", "preferred": "w"}, {"l": "x", "r": "y", "w": 1}, "A"),
        ({"response_1": "l", "response_2": "r", "preferred": "w"}, {"l": "x", "r": "y", "w": "r"}, "B"),
        ({"response_1": "l", "response_2": "r", "preferred": "w"}, {"l": "x", "r": "y", "w": "Tie"}, "tie"),
        (
            {"response_1": "l", "response_2": "r", "preference_strength": "s"},
            {"l": "x", "r": "y", "s": 2},
            "B",
        ),
        ({"chosen": "r", "rejected": "l"}, {"l": "x", "r": "y"}, "A"),
    ],
)
def test_columns_of_ones_own_pairs(columns, row, preferred):
    converter = get_converter("columns_pairwise", {"prompt": "q", **columns}, "mine")
    forward, swapped = converter.convert({"q": [{"role": "user", "content": "Q"}], **row})
    assert (forward.preferred, forward.input) == (preferred, (Message("user", "Q"),))
    assert swapped.swap().preferred == preferred


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        ("helpsteer2_pointwis", {}, "Did you mean 'helpsteer2_pointwise'"),
        ("helpsteer2_pointwise", {"prompt": "q"}, "leave them out"),
        ("columns_pointwise", {"prompt": "q", "response": "a"}, "names no label"),
        ("columns_pointwise", {"prompt": "q", "helpfulness": "a"}, "columns.response is missing"),
        ("columns_pointwise", {"prompt": "q", "response": "a", "output": "x"}, "cannot be named so"),
        ("columns_pointwise", {"prompt": "q", "response": "a", "s": {"column": "s"}}, r"scale: \[1, 5\]"),
        (
            "columns_pointwise",
            {"prompt": "q", "response": "a", "s": {"column": "s", "scale": [5, 1]}},
            "lowest",
        ),
        (
            "columns_pointwise",
            {"prompt": {"column": "q", "scale": [1, 5]}, "response": "a", "s": "s"},
            "expected",
        ),
        ("columns_pairwise", {"prompt": "q", "response_1": "a", "response_2": "b"}, "`preferred` or"),
        ("columns_pairwise", {"prompt": "q", "chosen": "a", "rejectd": "b"}, "Did you mean 'rejected'"),
        ("collections:Counter", {}, "expected a subclass of Converter"),
    ],
)
def test_a_converter_that_cannot_be_built_is_a_sentence(source, columns, message):
    with pytest.raises(ConfigError, match=message):
        get_converter(source, columns)


class Broken(Converter):
    label_names = ("helpfulness",)

    def parse(self, row):
        if row["prompt"] == "raises":
            return row["nothing"]
        if row["prompt"] == "pair":
            return Pair((Message("user", "P"),), "a", "b", "tie")
        labels = {"helpfulness": 1, **row.get("labels", {})}
        return Sample((Message("user", "P"),), "a", labels, metadata=row.get("metadata", {}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "raises"}, r"rows\.jsonl:1: KeyError: 'nothing'"),
        ({"prompt": "pair"}, "gave a Pair, its kind is pointwise"),
        ({"prompt": "", "labels": {"tone": 2}}, "labels .*'tone'.* label_names"),
        ({"prompt": "", "metadata": {"place": "x"}}, "metadata .*'place'.* metadata_names"),
    ],
)
def test_a_converter_of_ones_own_that_errs_is_a_sentence(tmp_path, monkeypatch, row, message):
    monkeypatch.setitem(converters._REGISTRY, "broken", Broken)
    path = helpers.write_lines(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match=message):
        helpers.convert(path, tmp_path, "broken")


def test_half_a_surrogate_pair_is_a_bad_row_and_not_a_crash():
    with pytest.raises(BadRow, match="not valid Unicode"):
        get_converter("helpsteer2_pointwise").convert(helpers.rating("half \ud800"))
