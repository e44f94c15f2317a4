"""Asking a judge: nothing twice, nothing before the labels are known to be good, the files, the command."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate import Predictions
from rm_gallery.core.evaluate.result import build_result, headline, read_result, write_result
from rm_gallery.core.evaluate.run import Journal, model_fingerprint, run_evaluation
from rm_gallery.core.evaluate.table import print_result
from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import PointwiseTask, get_task

from .helpers import pair_row, sample_row

ROWS = [sample_row(i, i % 5, response="word " * (i + 1)) for i in range(20)]


class Echo:
    """Stands in for a model: scores a response by its length, remembers what it was asked, can be killed."""

    reasoning_model = False

    def __init__(self, dies_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.dies_after = dies_after

    @classmethod
    def load(cls, path, **_):
        return cls()

    def generate(self, conversations, *, max_new_tokens):
        if self.dies_after is not None and len(self.asked) + len(conversations) > self.dies_after:
            raise KeyboardInterrupt
        self.asked += [conversation[-1]["content"] for conversation in conversations]
        return [
            f"<score>{content.count('word ') % 5}</score>" for content in self.asked[-len(conversations) :]
        ]


def judged(judge, rows=ROWS, **options):
    return run_evaluation(PointwiseTask(), judge, rows, max_new_tokens=8, batch_size=4, **options)


def test_answers_come_back_in_the_order_of_the_rows():
    found = judged(Echo())
    assert found.unique_id == tuple(row["unique_id"] for row in ROWS)
    assert found.predicted == tuple((i + 1) % 5 for i in range(20))


def test_a_killed_run_goes_on_where_it_stopped_and_asks_nothing_twice(tmp_path):
    path = tmp_path / "judgments.jsonl"
    first, second = Echo(dies_after=9), Echo()
    with pytest.raises(KeyboardInterrupt):
        judged(first, journal=Journal(path), fingerprint="m")
    assert len(first.asked) == 8
    path.write_text(path.read_text()[:-5])  # the last line was being written when the power failed
    found = judged(second, journal=Journal(path), fingerprint="m")
    assert len(second.asked) == 13
    assert found == judged(Echo())
    third = Echo()
    assert judged(third, journal=Journal(path), fingerprint="m") == found
    assert third.asked == []


def test_another_model_or_another_length_is_asked_again(tmp_path):
    journal = tmp_path / "judgments.jsonl"
    judged(Echo(), journal=Journal(journal), fingerprint="m")
    other = Echo()
    judged(other, journal=Journal(journal), fingerprint="n")
    assert len(other.asked) == 20


def test_the_same_question_is_asked_once():
    judge = Echo()
    counted = []
    found = judged(judge, [ROWS[0], {**ROWS[0], "unique_id": "copy"}], progress=counted.append)
    assert len(judge.asked) == 1
    assert len(found) == sum(counted) == 2


def test_a_bad_label_is_refused_before_the_judge_is_asked_anything():
    judge = Echo()
    bad = sample_row(3, 3)
    bad["helpfulness"] = 7
    with pytest.raises(DataError, match="row-3"):
        judged(judge, [*ROWS, bad])
    assert judge.asked == []


def test_the_fingerprint_changes_with_the_weights(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    before = model_fingerprint(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("a log is not the model")
    assert model_fingerprint(tmp_path) == before
    weights.write_bytes(b"22")
    assert model_fingerprint(tmp_path) != before


def result_of(predictions, **options):
    names = {"benchmark": "b", "model": "m"}
    return build_result(PointwiseTask(), predictions, ROWS, **names, **options)


def test_metrics_json_has_its_shape_and_the_same_bytes_each_time(tmp_path):
    result = result_of(judged(Echo()))
    for name in ("one", "two"):
        write_result(tmp_path / name, result_of(judged(Echo()), made={"folder": name}))
    one, two = (tmp_path / name / "metrics.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    found = json.loads(one.read_text())
    assert set(found) == {"benchmark", "model", "mode", "n", "metrics", "baselines"}
    assert set(found["metrics"]["reward"]) == {"value", "low", "high", "n"}
    assert found["baselines"]["majority"]["accuracy"] == 0.2
    assert found["baselines"]["majority"]["spearman"] is None
    assert "spearman" in found["baselines"]["majority"]["reason"]
    assert found["baselines"]["tfidf"] == {"reason": "not computed: it needs training rows (--train)"}
    again = read_result(tmp_path / "one")
    assert again.to_metrics_json() == result.to_metrics_json()
    assert again.details()["baselines"] == result.details()["baselines"]


def test_the_headline_says_which_of_the_three_it_is():
    class Knows(Echo):
        def generate(self, conversations, *, max_new_tokens):
            asked = [c[-1]["content"].count("word ") for c in conversations]
            return [f"<score>{(n - 1) % 5}</score>" for n in asked]

    class Mute(Echo):
        def generate(self, conversations, *, max_new_tokens):
            return [""] * len(conversations)

    assert "the judge is better" in headline(result_of(judged(Knows())))
    assert "the judge is worse" in headline(result_of(judged(Mute())))


def test_prompts_shared_with_the_training_rows_are_announced():
    result = result_of(judged(Echo()), train=[*ROWS[:3], sample_row(99, 2)])
    assert "3 of the evaluated prompts" in result.notes[0]


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_lines_up_and_never_hides_the_invalid(width, capsys):
    from rich.console import Console

    print_result(Console(width=width), result_of(judged(Echo())))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width for line in lines)
    header = next(line for line in lines if "accuracy" in line)
    judge = next(line for line in lines if line.startswith("judge"))
    for title in ("reward", "accuracy", "MAE", "kappa", "invalid"):  # right-aligned: they end together
        end = header.index(title) + len(title)
        assert judge[end - 1] != " "
        assert judge[end : end + 1] in ("", " ")
    assert "invalid" in header
    assert any(line.startswith("Invalid outputs: 0 of 20") for line in lines)


# -- the command


@pytest.fixture
def command(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    import rm_gallery.core.judge as package

    monkeypatch.setattr(package, "LocalJudge", Echo, raising=False)
    monkeypatch.chdir(tmp_path)
    rows = [{name: value for name, value in row.items() if name != "metadata"} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), "test.parquet")
    (tmp_path / "model").mkdir()

    def run(*arguments):
        return CliRunner().invoke(app, ["eval", "--model", "model", *arguments])

    return run


def test_the_command_writes_its_files_and_removes_the_journal(command, tmp_path):
    done = command("--data", "test.parquet", "--batch-size", "3")
    assert done.exit_code == 0, done.output
    assert "best_constant" in done.output
    assert "rmg report runs/eval/model-test" in done.output.replace("\n", " ")
    out = tmp_path / "runs/eval/model-test"
    assert sorted(path.name for path in out.iterdir()) == [
        "metrics.json",
        "predictions.parquet",
        "summary.json",
    ]
    assert len(Predictions.from_parquet(out / "predictions.parquet")) == 20


def test_json_prints_metrics_json_and_nothing_else(command, tmp_path):
    done = command(
        "--data", "test.parquet", "--json", "--out", "out", "--limit", "10", "--train", "test.parquet"
    )
    assert json.loads(done.stdout) == json.loads((tmp_path / "out/metrics.json").read_text())
    notes = json.loads((tmp_path / "out/summary.json").read_text())["notes"]
    assert notes[0] == "Only the first 10 rows of test.parquet were evaluated."


def test_a_saved_judge_is_asked_what_it_was_trained_on(command, tmp_path):
    from rm_gallery.core.tasks.saved import save_task

    save_task(
        tmp_path / "model", "pointwise", PointwiseTask(RewardConfig(name="linear"), instruction="Rate it.")
    )
    assert command("--data", "test.parquet", "--out", "linear").exit_code == 0
    found = json.loads((tmp_path / "linear/metrics.json").read_text())["metrics"]
    assert found["reward"]["value"] == pytest.approx(1 - found["mae"]["value"] / 4)  # linear, not exp_decay
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair_row(0, "A")) + "\n")
    done = command("--data", "pairs.jsonl")
    assert "saved as a pointwise judge and the rows are pairwise" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        (["--mode", "vote"], "the modes are: greedy", "a mode of later"),
        (["--data", "absent.parquet"], "no file absent.parquet", "a wrong path"),
        (["--data", "test.csv"], "expected .parquet", "another format"),
        (["--data", "source.jsonl"], "no column input and no output", "not converted yet"),
        (["--data", "bad.jsonl"], "bad.jsonl, line 2", "a broken line has a number"),
        (["--data", "pairs.jsonl", "--task", "pointwise"], "row-0", "pairs carry no score"),
    ],
)
def test_bad_input_is_one_sentence_that_says_where(command, tmp_path, arguments, error, why):
    (tmp_path / "test.csv").write_text("a,b\n")
    (tmp_path / "bad.jsonl").write_text(json.dumps(ROWS[0]) + "\n{oops\n")
    (tmp_path / "source.jsonl").write_text('{"prompt": "q", "response": "a", "helpfulness": 3}\n')
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair_row(0, "A")) + "\n")
    data = [] if "--data" in arguments else ["--data", "test.parquet"]
    done = command(*data, *arguments)
    assert done.exit_code != 0
    assert isinstance(done.exception, (ConfigError, DataError)), why
    assert error in str(done.exception)


def test_json_lines_are_read_plain_and_compressed(tmp_path):
    import gzip

    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert load_rows(tmp_path / "a.jsonl") == load_rows(tmp_path / "a.jsonl.gz") == ROWS
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-20])
    with pytest.raises(DataError, match="not a complete gzip"):
        load_rows(tmp_path / "cut.jsonl.gz")


def test_several_scores_at_once_are_refused_by_name():
    with pytest.raises(ConfigError, match="multi_dimension"):
        run_evaluation(get_task("multi_dimension"), Echo(), [], max_new_tokens=1)
