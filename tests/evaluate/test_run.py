"""Evaluating a judge: nothing twice, nothing before the labels are known to be good, the files, the command."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rm_gallery.cli import app
from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate import Predictions, score_outputs
from rm_gallery.core.evaluate.build import build_result
from rm_gallery.core.evaluate.model import Settings, evaluate_benchmark, evaluate_data
from rm_gallery.core.evaluate.result import headline, read_result, write_result
from rm_gallery.core.evaluate.table import print_result
from rm_gallery.core.judge.answer import MODES, Answer
from rm_gallery.core.judge.read import read
from rm_gallery.core.judge.subject import Asking, Candidate, Subject
from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import PointwiseTask, get_task

from .helpers import pair_row, sample_row

ROWS = [sample_row(i, i % 5, response="word " * (i + 1)) for i in range(20)]


def by_length(content: str) -> str:
    return f"<score>{content.count('word ') % 5}</score>"


class Echo:
    """A judge by a rule, which remembers what it was asked, and can be killed."""

    modes = MODES
    fingerprint = "echo"

    def __init__(self, rule=by_length, dies_after: int | None = None) -> None:
        self.rule = rule
        self.asked: list[str] = []
        self.dies_after = dies_after

    def answer(self, task, conversations, *, mode, max_new_tokens, samples=8, seed=0, done=lambda _: None):
        answers: list[Answer] = []
        for start in range(0, len(conversations), 4):
            contents = [c[-1]["content"] for c in conversations[start : start + 4]]
            if self.dies_after is not None and len(self.asked) + len(contents) > self.dies_after:
                raise KeyboardInterrupt
            self.asked += contents
            batch = [read(task, self.rule(content)) for content in contents]
            done({start + i: answer for i, answer in enumerate(batch)})
            answers += batch
        return answers


@dataclass(frozen=True)
class Ready(Candidate):
    """A judge that is there already."""

    judge: Any = field(default=None, kw_only=True)

    def open(self) -> Subject:
        return Subject(self.name, judge=self.judge)


def judged(judge: Echo, rows=ROWS) -> Predictions:
    task = PointwiseTask()
    conversations = [task.messages(row) for row in rows]
    return score_outputs(task, rows, judge.answer(task, conversations, mode="greedy", max_new_tokens=8))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def test_a_killed_evaluation_goes_on_where_it_stopped_and_asks_nothing_twice(labelled, tmp_path):
    first, second = Echo(dies_after=9), Echo()
    with pytest.raises(KeyboardInterrupt):
        evaluate_data(Ready("m", judge=first), labelled, tmp_path / "out")
    assert len(first.asked) == 8
    result = evaluate_data(Ready("m", judge=second), labelled, tmp_path / "out")
    assert len(second.asked) == 12
    assert result.made["answers_from_an_earlier_run"] == 8
    whole = evaluate_data(Ready("m", judge=Echo()), labelled, tmp_path / "whole")
    assert (tmp_path / "out/metrics.json").read_bytes() == (tmp_path / "whole/metrics.json").read_bytes()
    assert result.predictions == whole.predictions
    assert not (tmp_path / "out/judgments.jsonl").exists()


def test_what_an_endpoint_answered_before_it_failed_is_kept(labelled, tmp_path):
    """A failure passes there: the same command asks the failed questions again, and only those."""

    class Failing(Echo):
        def answer(self, task, conversations, *, done=lambda _: None, **options):
            half = len(conversations) // 2
            found = super().answer(task, conversations[:half], **options)
            found += [Answer(problem="failed: 503")] * (len(conversations) - half)
            done(dict(enumerate(found)))
            return found

    first, second = Failing(), Echo()
    result = evaluate_data(Ready("openai:m", judge=first), labelled, tmp_path / "out")
    assert "10 of 20 questions failed at the endpoint: the same command asks those again." in result.notes
    result = evaluate_data(Ready("openai:m", judge=second), labelled, tmp_path / "out")
    assert len(second.asked) == 10
    assert not any("failed" in note for note in result.notes)
    assert not (tmp_path / "out/judgments.jsonl").exists()
    evaluate_data(Ready("m", judge=Failing()), labelled, tmp_path / "here")
    assert not (tmp_path / "here/judgments.jsonl").exists(), "a model in this process would fail again"


def test_pairs_whose_labels_stand_in_metadata_are_evaluated(tmp_path):
    """Of older rows beside newer ones, the columns are null."""
    rows = [pair_row(i, "AB"[i % 2]) for i in range(6)]
    rows[0] |= {"preferred": None, "preference_strength": None}
    rows[1]["preference_strength"] = "slightly"  # which nothing here looks at
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = Echo(lambda content: "<preference>A</preference>")
    result = evaluate_data(Ready("m", judge=judge), file, tmp_path / "out")
    assert result.predictions.truth == ("A", "B") * 3


def test_another_length_is_asked_again(labelled, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate_data(Ready("m", judge=Echo(dies_after=16)), labelled, tmp_path / "out")
    other = Echo()
    evaluate_data(Ready("m", judge=other), labelled, tmp_path / "out", Settings(Asking(max_new_tokens=9)))
    assert len(other.asked) == 20


def test_a_bad_label_is_refused_before_the_model_is_loaded(tmp_path):
    class Never(Candidate):
        def open(self):
            raise AssertionError("loaded")

    bad = sample_row(3, 3)
    bad["helpfulness"] = bad["output"]["label"]["helpfulness"] = 7
    file = tmp_path / "bad.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS[:3], bad]))
    with pytest.raises(DataError, match="row-3"):
        evaluate_data(Never("m"), file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_judge_of_single_responses_ranks_those_of_a_pair(tmp_path):
    """A pair in both orders is one comparison, and each response is asked about once."""
    longer, shorter = "word word word", "word"
    pairs = [pair_row(0, "A", "q", longer, shorter), pair_row(1, "B", "q", shorter, longer)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    judge = Echo(lambda content: f"<score>{min(4, content.count('word'))}</score>")
    result = evaluate_data(Ready("m", judge=judge), file, tmp_path / "out", Settings(task="pointwise"))
    assert len(judge.asked) == 2
    assert (result.n, result.kind, result.headline) == (1, "pointwise", "accuracy_untied")
    assert result.metrics["accuracy_untied"].value == 1.0
    again = read_result(tmp_path / "out")
    assert again.to_metrics_json() == result.to_metrics_json()
    assert again.shares is not None


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
    def knows(content: str) -> str:
        return f"<score>{(content.count('word ') - 1) % 5}</score>"

    assert "the judge is better" in headline(result_of(judged(Echo(knows))))
    assert "the judge is worse" in headline(result_of(judged(Echo(lambda _: ""))))


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
def command(tmp_path, monkeypatch, tiny_model, one_thread):
    """`rmg eval` with a copy of a real tiny model, whose answers are noise."""
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    rows = [{name: value for name, value in row.items() if name != "metadata"} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), "test.parquet")
    shutil.copytree(tiny_model, "model")

    def run(*arguments):
        return CliRunner().invoke(app, ["eval", "--model", "model", "--max-new-tokens", "4", *arguments])

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


def test_the_tokens_read_at_a_time_change_memory_and_no_figure(command, tmp_path, monkeypatch):
    from rm_gallery.core.judge import expected

    passes: list[int] = []
    cut = expected.batches

    def counted(prompts, tree, budget):
        found = cut(prompts, tree, budget)
        passes.append(len(found))
        return found

    monkeypatch.setattr(expected, "batches", counted)
    figures = []
    for budget in ("1", "8192"):
        done = command(
            "--data", "test.parquet", "--mode", "expected", "--batch-tokens", budget, "--out", budget
        )
        assert done.exit_code == 0, done.output
        figures.append(Predictions.from_parquet(tmp_path / budget / "predictions.parquet"))
    assert passes == [20, 1], "a pass each, and one for all"
    one, all_at_once = (found.probabilities for found in figures)
    assert sum(one, ()) == pytest.approx(sum(all_at_once, ()), abs=1e-6)


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
    assert command("--data", "test.parquet", "--out", "linear", "--mode", "expected").exit_code == 0
    found = json.loads((tmp_path / "linear/metrics.json").read_text())["metrics"]
    assert found["reward"]["value"] == pytest.approx(1 - found["mae"]["value"] / 4)  # linear, not exp_decay
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair_row(0, "A")) + "\n")
    done = command("--data", "pairs.jsonl", "--mode", "expected")
    assert done.exit_code == 0, "it ranks the responses of pairs"
    save_task(tmp_path / "model", "pairwise", get_task("pairwise"))
    done = command("--data", "test.parquet")
    assert "is a pairwise judge and the rows of test.parquet are rated responses" in str(done.exception)


def test_expected_tells_the_distribution_and_its_calibration(command, tmp_path):
    done = command("--data", "test.parquet", "--mode", "expected", "--out", "out")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out/metrics.json").read_text())
    assert found["mode"] == "expected"
    assert found["metrics"]["parse_rate"]["value"] == 1.0
    assert 0 < found["metrics"]["mass"]["value"] < 0.01, "of a random model nearly nothing is a legal verdict"
    predictions = Predictions.from_parquet(tmp_path / "out/predictions.parquet")
    assert all(sum(p) == pytest.approx(1) for p in predictions.probabilities)


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        (["--mode", "guess"], "the modes are greedy, expected, vote", "no such mode"),
        (["--benchmark", "rm_bench"], "one of the two", "rows and a benchmark at once"),
        (["--base-url", "http://127.0.0.1:1/v1"], "openai:NAME", "an endpoint for a folder"),
        (["--data", "absent.parquet"], "no file absent.parquet", "a wrong path"),
        (["--data", "test.csv"], "expected .parquet", "another format"),
        (["--data", "source.jsonl"], "no column input and no output", "not converted yet"),
        (["--data", "bad.jsonl"], "bad.jsonl, line 2", "a broken line has a number"),
        (["--data", "unlabelled.jsonl"], "row-0", "a rated response without a rating"),
    ],
)
def test_bad_input_is_one_sentence_that_says_where(command, tmp_path, arguments, error, why):
    (tmp_path / "test.csv").write_text("a,b\n")
    (tmp_path / "bad.jsonl").write_text(json.dumps(ROWS[0]) + "\n{oops\n")
    (tmp_path / "source.jsonl").write_text('{"prompt": "q", "response": "a", "helpfulness": 3}\n')
    unlabelled = {name: value for name, value in ROWS[0].items() if name != "helpfulness"}
    unlabelled["output"] = {"content": "an answer", "label": {}}
    (tmp_path / "unlabelled.jsonl").write_text(json.dumps(unlabelled) + "\n")
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


def test_rows_without_one_of_several_labels_are_refused_by_name(labelled, tmp_path):
    with pytest.raises(DataError, match="row-0: there is no label 'correctness', only helpfulness"):
        evaluate_data(Ready("m", judge=Echo()), labelled, tmp_path / "out", Settings(task="multi_dimension"))


def test_a_rating_judge_rates_what_a_benchmark_has_ratings_of(shared_data, tmp_path):
    """HelpSteer2's responses are rated one by one; a judge of pairs gets them as pairs."""
    path, settings = shared_data / "helpsteer2" / "validation.jsonl.gz", Settings(task="pointwise", limit=40)
    judge = Echo(lambda content: f"<score>{len(content) % 5}</score>")
    rated = evaluate_benchmark(Ready("m", judge=judge), "helpsteer2", path, tmp_path / "rated", settings)
    assert (rated.kind, rated.n, rated.benchmark) == ("pointwise", 40, "helpsteer2")
    assert {"kappa", "pairwise_accuracy"} <= set(rated.metrics)
    judge = Echo(lambda _: "<preference>A</preference>")
    paired = evaluate_benchmark(
        Ready("m", judge=judge), "helpsteer2", path, tmp_path / "paired", Settings(limit=20)
    )
    assert (paired.kind, paired.n, len(judge.asked)) == ("pairwise", 20, 40)
    assert paired.metrics["first_position_rate"].value == 1.0
    assert paired.metrics["two_order_accuracy"].value == 0.0
