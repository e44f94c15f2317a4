"""Which file a row ends in: the source's own split, a draw by prompt, subfolders, and refusals."""

from __future__ import annotations

import pytest

from rm_gallery.core.data.sources import find_files, split_of
from rm_gallery.core.errors import ConfigError, DataError

from . import helpers


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl.gz", "train"),
        ("training_v2.csv", "train"),
        ("train-00000-of-00002.parquet", "train"),
        ("trainer_notes.jsonl", None),
        ("validation.jsonl", "validation"),
        ("val.jsonl", "validation"),
        ("dev.json", "validation"),
        ("values.jsonl", None),
        ("Test.jsonl", "test"),
        ("testimonials.jsonl", None),
        ("preference.jsonl", None),
        (None, None),
    ],
)
def test_the_split_that_a_name_says(name, split):
    assert split_of(name) == split


def test_train_and_validation_files_are_kept_apart_and_announced(tmp_path):
    helpers.write_lines(tmp_path / "in" / "train.jsonl", helpers.ratings(5))
    helpers.write_lines(tmp_path / "in" / "validation.jsonl", helpers.ratings(40, start=5))
    report = helpers.convert(tmp_path / "in", tmp_path / "out")
    assert report.splits_rows() == {"train": 5, "test": 40}
    assert any("carries its own split" in notice for notice in report.notices)
    assert {row["metadata"]["split"] for row in helpers.exported(tmp_path / "out", "test")} == {"validation"}


def test_split_ratio_draws_in_spite_of_the_files(tmp_path):
    helpers.write_lines(tmp_path / "in" / "train.jsonl", helpers.ratings(50))
    helpers.write_lines(tmp_path / "in" / "validation.jsonl", helpers.ratings(50, start=50))
    report = helpers.convert(tmp_path / "in", tmp_path / "out", export={"split": "ratio"})
    assert 65 <= report.splits_rows()["train"] <= 95
    assert any("export.split is ratio" in notice for notice in report.notices)


def test_a_single_train_file_has_no_other_side_and_is_drawn_from(tmp_path):
    path = helpers.write_lines(tmp_path / "train.jsonl", helpers.ratings(50))
    assert helpers.convert(path, tmp_path / "out").splits_rows()["test"] > 0


def test_the_split_field_of_rows_goes_before_the_name_of_the_file(tmp_path):
    rows = [{**row, "split": "validation" if n < 3 else "train"} for n, row in enumerate(helpers.ratings(9))]
    path = helpers.write_lines(tmp_path / "train.jsonl", rows)
    assert helpers.convert(path, tmp_path / "out").splits_rows() == {"test": 3, "train": 6}


def test_rows_without_their_split_are_bad_where_others_have_one(tmp_path):
    rows = [{**row, "split": "train" if n % 2 else "test"} for n, row in enumerate(helpers.ratings(300))]
    path = helpers.write_lines(
        tmp_path / "a.jsonl", [*rows, *helpers.ratings(1, 900), {**rows[0], "split": "?"}]
    )
    report = helpers.convert(path, tmp_path / "out")
    assert report.skipped == {"split is missing": 1, "split is none of train, validation and test": 1}


def test_names_of_three_splits(tmp_path):
    for name, start in (("train", 0), ("val", 10), ("test", 20)):
        helpers.write_lines(tmp_path / "in" / f"{name}.jsonl", helpers.ratings(4, start))
    ratio = {"fit": 0.6, "dev": 0.2, "test": 0.2}
    report = helpers.convert(tmp_path / "in", tmp_path / "out", export={"split_ratio": ratio})
    assert report.splits_rows() == {"fit": 4, "dev": 4, "test": 4}
    (tmp_path / "in" / "test.jsonl").unlink()
    with pytest.raises(DataError, match="'test' got no row: the source's own split has only 'fit' and 'dev'"):
        helpers.convert(tmp_path / "in", tmp_path / "other", export={"split_ratio": ratio})
    ratio = {"fit": 0.6, "one": 0.2, "two": 0.2}
    with pytest.raises(ConfigError, match="validation part has no name"):
        helpers.convert(tmp_path / "in", tmp_path / "other", export={"split_ratio": ratio})


def test_a_file_of_no_split_beside_others_is_refused(tmp_path):
    for name in ("train", "validation", "more"):
        helpers.write_lines(tmp_path / "in" / f"{name}.jsonl", helpers.ratings(4))
    with pytest.raises(DataError, match=r"more\.jsonl belongs to no split"):
        helpers.convert(tmp_path / "in", tmp_path / "out")


def test_a_draw_that_leaves_a_split_empty_fails_and_writes_nothing(tmp_path):
    path = helpers.write_lines(tmp_path / "rows.jsonl", [helpers.rating("One?", str(n)) for n in range(20)])
    with pytest.raises(DataError, match="got no row: 20 rows are too few"):
        helpers.convert(path, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))


def test_all_responses_to_a_prompt_are_on_one_side(tmp_path):
    rows = [helpers.rating(f"Q{n % 40}", f"A{n}") for n in range(400)]
    report = helpers.convert(helpers.write_lines(tmp_path / "rows.jsonl", rows), tmp_path)
    sides = [{row["input"][0]["content"] for row in helpers.exported(tmp_path, s)} for s in ("train", "test")]
    assert not sides[0] & sides[1]
    assert report.shared_prompts == 0
    assert [report.splits[s].prompts for s in ("train", "test")] == [len(side) for side in sides]


def test_prompts_on_both_sides_of_the_sources_split_are_announced(tmp_path):
    helpers.write_lines(tmp_path / "in" / "train.jsonl", helpers.ratings(5))
    helpers.write_lines(
        tmp_path / "in" / "test.jsonl", [helpers.rating("Question 1?", "Other."), *helpers.ratings(5, 9)]
    )
    report = helpers.convert(tmp_path / "in", tmp_path / "out")
    assert report.shared_prompts == 1
    assert any("1 prompts" in notice for notice in report.notices)


def test_preserve_structure_keeps_subfolders_of_a_glob(tmp_path):
    for folder, start in (("a", 0), ("b", 60)):
        helpers.write_lines(tmp_path / "in" / folder / "rows.jsonl", helpers.ratings(60, start))
    helpers.convert(tmp_path / "in" / "*" / "*.jsonl", tmp_path / "kept")
    files = {str(file.relative_to(tmp_path / "kept")) for file in (tmp_path / "kept").rglob("*.parquet")}
    assert files == {f"{folder}/data_{split}.parquet" for folder in "ab" for split in ("train", "test")}
    flat = helpers.convert(
        tmp_path / "in" / "*" / "*.jsonl", tmp_path / "flat", export={"preserve_structure": False}
    )
    assert len(flat.files) == 2


def test_folders_are_not_read_recursively_and_copies_are_left_out(tmp_path):
    helpers.write_lines(tmp_path / "rows.jsonl", helpers.ratings(3))
    helpers.write_lines(tmp_path / "rows.jsonl.gz", helpers.ratings(3))
    helpers.write_lines(tmp_path / "deep" / "rows.jsonl", helpers.ratings(3))
    (tmp_path / "README.md").write_text("hello")
    files, notices = find_files(str(tmp_path))
    assert [file.path.name for file in files] == ["rows.jsonl"]
    assert "rows.jsonl.gz is left out" in notices[0]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("rows.jsnl", r"rows\.jsnl does not exist\. Did you mean 'rows\.jsonl'"),
        ("nowhere/rows.jsonl", "nor the folder"),
        ("*.csv", "no file of a format that can be read"),
        ("notes.md", "is of no format that can be read"),
        ("empty", r"holds no file that can be read .*it holds below"),
        ("saved", "set configs.type to huggingface"),
    ],
)
def test_a_path_that_cannot_be_read_is_a_sentence(tmp_path, path, message):
    helpers.write_lines(tmp_path / "rows.jsonl", helpers.ratings(3))
    (tmp_path / "notes.md").write_text("hello")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(DataError, match=message):
        find_files(str(tmp_path / path))


def test_the_compressed_file_is_read_for_a_path_without_gz(tmp_path):
    helpers.write_lines(tmp_path / "rows.jsonl.gz", helpers.ratings(3))
    files, notices = find_files(str(tmp_path / "rows.jsonl"))
    assert files[0].path.name == "rows.jsonl.gz"
    assert "does not exist; reading rows.jsonl.gz" in notices[0]


def test_an_export_over_its_source_is_refused(tmp_path):
    path = helpers.write_lines(tmp_path / "data_train.jsonl", helpers.ratings(30))
    with pytest.raises(ConfigError, match="would be overwritten"):
        helpers.convert(path, tmp_path, export={"formats": ["jsonl"]})


@pytest.mark.parametrize("target", ["file", "folder"])
def test_an_output_that_cannot_be_written_is_a_sentence(tmp_path, target):
    path = helpers.write_lines(tmp_path / "rows.jsonl", helpers.ratings(30))
    if target == "file":
        (tmp_path / "out").write_text("in the way")
    else:
        (tmp_path / "out" / "data_test.parquet").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be written"):
        helpers.convert(path, tmp_path / "out")
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "out" / "data_train.parquet").exists()  # all of the files or none


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet", "jsonl.gz"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    import pandas as pd

    rows = helpers.ratings(40)
    frame = pd.DataFrame(rows)
    path = tmp_path / f"rows.{suffix}"
    if suffix == "json":
        frame.to_json(path, orient="records")
    elif suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        helpers.write_lines(path, rows)
    helpers.convert(path, tmp_path / "one")
    helpers.convert(helpers.write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "two")
    assert helpers.every(tmp_path / "one") == helpers.every(tmp_path / "two")


def test_json_lines_under_the_name_json_are_read(tmp_path):
    path = helpers.write_lines(tmp_path / "rows.json", helpers.ratings(40))
    assert helpers.convert(path, tmp_path).kept == 40


@pytest.mark.parametrize("saved", ["dict", "single", "files"])
def test_a_dataset_folder_of_huggingface(tmp_path, saved):
    datasets = pytest.importorskip("datasets")
    train = datasets.Dataset.from_list(helpers.ratings(40))
    held_out = datasets.Dataset.from_list(helpers.ratings(10, 40))
    folder = tmp_path / "saved"
    if saved == "dict":
        datasets.DatasetDict({"train": train, "validation": held_out}).save_to_disk(folder)
    elif saved == "single":
        train.save_to_disk(folder)
    else:
        helpers.write_lines(folder / "train.jsonl", helpers.ratings(40))
        helpers.write_lines(folder / "validation.jsonl", helpers.ratings(10, 40))
    report = helpers.convert(folder, tmp_path / "out", configs={"type": "huggingface"})
    if saved == "single":
        assert report.kept == 40
    else:
        assert report.splits_rows() == {"train": 40, "test": 10}


def test_a_missing_dataset_and_a_missing_package_are_sentences(tmp_path, monkeypatch):
    import sys

    from rm_gallery.core.errors import MissingDependency

    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="does not exist"):
        helpers.convert(tmp_path / "nothing", tmp_path, configs={"type": "huggingface"})
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match="pip install"):
        helpers.convert(tmp_path, tmp_path, configs={"type": "huggingface"})


def test_the_names_of_the_ratio_decide_not_their_order(tmp_path):
    """`{test: …, train: …}` must not export the training part as the test part."""
    helpers.write_lines(tmp_path / "in" / "train.jsonl", helpers.ratings(5))
    helpers.write_lines(tmp_path / "in" / "validation.jsonl", helpers.ratings(3, start=5))
    export = {"split_ratio": {"test": 0.2, "train": 0.8}}
    report = helpers.convert(tmp_path / "in", tmp_path / "out", export=export)
    assert report.splits_rows() == {"train": 5, "test": 3}
