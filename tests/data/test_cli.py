"""`rmg data`, the YAML of the guides, and the figures of the real data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.data import describe_files, load_config
from rm_gallery.core.errors import ConfigError, DataError, RMGalleryError

from . import helpers

ROOT = Path(__file__).resolve().parents[2]
POINTWISE = ROOT / "examples/train/pointwise/data_config.yaml"
PAIRWISE = ROOT / "examples/train/pairwise/data_config.yaml"


def run(*arguments):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    if isinstance(result.exception, RMGalleryError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_pointwise_of_the_guide_on_the_real_data(shared_data, tmp_path):
    import pandas as pd

    path = shared_data / "helpsteer2"
    sets = ["--set", f"dataset.configs.path={path}", "--set", f"dataset.export.output_dir={tmp_path}"]
    result = run("convert", "--config", POINTWISE, *sets)
    train = pd.read_parquet(tmp_path / "helpsteer2_pointwise_train.parquet")
    test = pd.read_parquet(tmp_path / "helpsteer2_pointwise_test.parquet")
    assert (len(train), len(test)) == (1928, 520)
    assert train["helpfulness"].value_counts()[4] == 745
    prompts = [{json.dumps([dict(m) for m in turns]) for turns in frame["input"]} for frame in (train, test)]
    assert (len(prompts[0]), len(prompts[1]), prompts[0] & prompts[1]) == (964, 260, set())
    assert not train["unique_id"].duplicated().any()
    assert not any("<extra_id_1>" in m["content"] for turns in train["input"] for m in turns)
    assert re.search(r"skipped +0", result.output)
    # the command that is named as the next one runs
    found = json.loads(run(*result.stdout.split("next: rmg data ")[1].split(), "--json").stdout)
    baselines = found["files"][1]["baselines"]
    assert baselines["majority"] == {"label": 4, "accuracy": pytest.approx(0.4038, abs=5e-5)}
    assert baselines["best_constant_reward"] == {"label": 3, "reward": pytest.approx(0.6784, abs=5e-5)}
    assert baselines["longer_is_better"] == {"accuracy": pytest.approx(0.613, abs=5e-4), "untied_pairs": 181}
    assert found["shared_prompts"][0]["prompts"] == 0


def test_pairwise_of_the_guide_on_the_real_data(shared_data, tmp_path):
    path = shared_data / "helpsteer2/preference/preference.jsonl"  # the data is beside it, with .gz
    sets = ["--set", f"dataset.configs.path={path}", "--set", f"dataset.export.output_dir={tmp_path}"]
    figures = json.loads(run("convert", "--config", PAIRWISE, *sets, "--json").stdout)
    assert (figures["read"], figures["kept"], figures["skipped"], figures["duplicates"]) == (
        1305,
        1305,
        {},
        0,
    )
    rows = [r for s in ("train", "test") for r in helpers.exported(tmp_path, s, "helpsteer2_pairwise")]
    assert len(rows) == 2 * 1305
    groups = {}
    for row in rows:
        groups.setdefault(row["metadata"]["group"], []).append(row)
    for one, other in groups.values():
        assert one["output"][0]["content"] == other["output"][1]["content"]
        assert one["preference_strength"] == -other["preference_strength"]
        assert {one["preferred"], other["preferred"]} in ({"A", "B"}, {"tie"})
        assert one["metadata"]["preferred"] == one["preferred"]
    assert figures["shared_prompts"] == 0


@pytest.mark.parametrize("folder", ["elsewhere", "."])
def test_the_script_works_from_any_folder(tmp_path, folder):
    work = tmp_path / folder
    work.mkdir(exist_ok=True)
    source = helpers.write_lines(tmp_path / "rows.jsonl", helpers.ratings(30))
    command = [sys.executable, str(ROOT / "examples/data/data_from_yaml.py"), "--config", str(POINTWISE)]
    done = subprocess.run(
        [*command, "--set", f"dataset.configs.path={source}"], cwd=work, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (work / "examples/data/exports/helpsteer2_pointwise_train.parquet").is_file()
    assert "\x1b" not in done.stderr + done.stdout  # no bar, for it is no terminal


def test_a_failure_is_a_sentence_with_status_1(tmp_path):
    command = [sys.executable, "-c", "from rm_gallery.cli import main; main()"]
    done = subprocess.run(
        [*command, "data", "convert", "--config", str(tmp_path / "no.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"error: there is no configuration file {tmp_path / 'no.yaml'}"


def test_the_yaml_of_the_guides_is_what_ships():
    guide = """
    dataset:
      name: helpsteer2_pointwise
      configs:
        type: local
        source: helpsteer2_pointwise
        path: ~/data/HelpSteer2/helpsteer2
      export:
        output_dir: ./examples/data/exports
        formats: ["parquet"]
        preserve_structure: true
        split_ratio: {train: 0.8, test: 0.2}
    """
    import yaml

    assert yaml.safe_load(POINTWISE.read_text()) == yaml.safe_load(guide)
    assert load_config(PAIRWISE).configs.path == "~/data/HelpSteer2/preference/preference.jsonl"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "dataset.export.split_ration={train: 1}",
            "export.split_ration is not a known key. Did you mean 'split_ratio'",
        ),
        ("configs.sourc=x", "Did you mean 'source'"),
        ("dataset.export.split_ratio={train: 0.8, test: 0.3}", "the shares sum to 1.1"),
        ("dataset.export.split_ratio={train: 1.2, test: -0.2}", "must be positive"),
        ("dataset.export.split_ratio={a/b: 1}", "cannot be the name of a split"),
        ("dataset.export.formats=[parqet]", "Did you mean 'parquet'"),
        ("dataset.configs.type=huggingfac", "Did you mean 'huggingface'"),
        ("dataset.configs.max_invalid_fraction=2", "less than or equal to 1"),
        ("dataset.name=../x", "dataset.name is '../x'"),
        ("dataset.configs=null", "dataset.configs is None"),
        ("dataset.name.more=1", "nothing can be set in it"),
        ("nonsense", "expected key=value"),
        ("dataset.name={", "not valid YAML"),
    ],
)
def test_a_bad_setting_is_a_sentence(override, message):
    with pytest.raises(ConfigError) as failure:
        load_config(POINTWISE, [override])
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "expected a section `dataset`"),
        ("dataset: {name: x}", "configs is missing"),
    ],
)
def test_a_bad_yaml_is_a_sentence(tmp_path, content, message):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "bad.yaml")


def test_describe_counts_prompts_that_files_share(tmp_path):
    for name, start in (("a", 0), ("b", 30)):
        path = helpers.write_lines(tmp_path / f"{name}.jsonl", helpers.ratings(50, start))
        helpers.convert(path, tmp_path / name, export={"split_ratio": {"all": 1.0}})
    files = [tmp_path / name / "data_all.parquet" for name in "ab"]
    assert describe_files(files)["shared_prompts"][0]["prompts"] == 20
    assert "20 prompts are in both" in run("describe", *files).stdout


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json"])
def test_describe_reads_every_exported_format_alike(tmp_path, kind):
    rows = [helpers.rating(f"Q{n // 2}", "word " * (1 + n % 3), n % 5) for n in range(60)]
    path = helpers.write_lines(tmp_path / "rows.jsonl", rows)
    report = helpers.convert(path, tmp_path, export={"formats": [kind], "split_ratio": {"all": 1.0}})
    (found,) = describe_files(report.files)["files"]
    assert (found["rows"], found["prompts"], found["kind"]) == (60, 30, "pointwise")
    assert found["labels"]["helpfulness"] == dict.fromkeys("01234", 12)
    pairs = [
        (a, b) for a, b in zip(rows[::2], rows[1::2], strict=True) if a["helpfulness"] != b["helpfulness"]
    ]
    right = sum(
        0.5
        if len(a["response"]) == len(b["response"])
        else (len(a["response"]) > len(b["response"])) == (a["helpfulness"] > b["helpfulness"])
        for a, b in pairs
    )
    expected = {"accuracy": pytest.approx(right / len(pairs)), "untied_pairs": len(pairs)}
    assert found["baselines"]["longer_is_better"] == expected


def test_describe_reads_the_older_shape(tmp_path):
    row = {
        "unique_id": "1",
        "input": json.dumps([{"role": "user", "content": "Q"}]),
        "output": json.dumps([{"answer": {"content": "two words", "label": {"helpfulness": 2}}}]),
    }
    (found,) = describe_files([helpers.write_lines(tmp_path / "old.jsonl", [row])])["files"]
    assert found["labels"] == {"helpfulness": {"2": 1}}
    assert found["words"]["response"]["mean"] == 2


def test_describe_of_a_raw_file_says_what_to_do(tmp_path):
    path = helpers.write_lines(tmp_path / "raw.jsonl", helpers.ratings(3))
    with pytest.raises(DataError, match=r"raw\.jsonl:1: .*rmg data convert"):
        describe_files([path])


def test_importing_the_data_layer_is_light():
    code = "import sys, rm_gallery.core.data; print([m for m in ('numpy', 'pandas', 'pyarrow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip() == "[]", done.stderr


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Ten times the rows, and at most 64 bytes a row more (and some slack for the allocators)."""
    peaks, counts = [], (8_000, 80_000)
    for count in counts:
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as file:
            for number in range(count):
                file.write(
                    json.dumps(helpers.rating(f"Question {number}?", "word " * 200, number % 5)) + "\n"
                )
        code = f"""
from pathlib import Path
from rm_gallery.core.data import DatasetConfig, convert_dataset
configs = {{"source": "helpsteer2_pointwise", "path": {str(path)!r}}}
export = {{"output_dir": {str(tmp_path / "out")!r}}}
convert_dataset(DatasetConfig.model_validate({{"name": "m", "configs": configs, "export": export}}))
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        peaks.append(int(done.stdout))
    # 72,000 rows of 1 KiB are 76 MB: held in memory, they would show
    assert peaks[1] - peaks[0] < 64 * (counts[1] - counts[0]) + (32 << 20)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    """The commonest first mistake: it is in the YAML, not in sixty rows."""
    (tmp_path / "answers.csv").write_text("q,a,s\nwhy,because,3\n", encoding="utf-8")
    config = tmp_path / "mine.yaml"
    config.write_text(
        "dataset: {name: mine, configs: {type: local, source: columns_pointwise, path: answers.csv, columns: "
        "{prompt: q, response: a, helpfulness: stars}}, export: {output_dir: out, formats: [parquet], "
        "split_ratio: {train: 1.0}}}".replace("path: answers.csv", f"path: {tmp_path / 'answers.csv'}"),
        encoding="utf-8",
    )
    result = CliRunner().invoke(app, ["data", "convert", "--config", str(config)])
    assert isinstance(result.exception, DataError)
    assert "has no column 'stars'" in str(result.exception)
    assert "it has: q, a, s" in str(result.exception)
