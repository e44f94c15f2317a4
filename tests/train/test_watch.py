"""`rmg watch`: what it reads from a run's folder, and how that looks."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from rm_gallery.cli.watch import watch
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.train.watch import BLOCKS, read_snapshot, sparkline
from rm_gallery.core.train.watch_view import duration, figure, view
from tests.conftest import ROOT

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command()(watch)


def records(last: int, *, every: int = 10) -> list[dict]:
    """Lines of a run up to step `last`, under the names of both engines."""
    lines = []
    for step in range(last + 1):
        if step:
            lines.append(
                {
                    "step": step,
                    "split": "train",
                    "loss": 1e-9,
                    "reward/mean": 0.5 + step / 1000,
                    "accuracy": 0.4,
                    "mae": 1.0 - step / 1000,
                    "parse_rate": 0.99,
                    "kl_loss": step / 1e5,
                    "grad_norm": None,
                    "tokens_per_second": 48211.0,
                    "timing_s/step": 4.0,
                }
            )
        if step % every == 0:
            figures = {"reward/mean": 0.52, "accuracy": 0.41, "parse_rate": 1.0, "seconds": 8.0}
            lines.append({"step": step, "split": "val", **figures})
    return lines


def make_run(path: Path, last: int | None = 47, *, age: float = 0, log: str = "", **config) -> Path:
    (path / "logs").mkdir(parents=True, exist_ok=True)
    values = {
        "model": {"path": "Qwen/Qwen2.5-0.5B-Instruct"},
        "data": {"train": "train.parquet", "val": "val.parquet"},
        "train": {"batch_size": 8, "mini_batch_size": 4, "max_steps": 100, "eval_every": 10},
        **config,
    }
    (path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    if last is not None:
        text = "".join(json.dumps(record) + "\n" for record in records(last))
        (path / "metrics.jsonl").write_text(text, encoding="utf-8")
    (path / "logs/training.log").write_text(log, encoding="utf-8")
    if age:
        then = time.time() - age
        for entry in [*path.rglob("*"), path]:
            os.utime(entry, (then, then))
    return path


def link(run: Path, name: str, target: str) -> None:
    (run / target).mkdir(parents=True, exist_ok=True)
    (run / name).symlink_to(target)


def shown(run: Path, width: int = 80, height: int | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(view(read_snapshot(run), width, height))
    return out.getvalue()


# -- properties

curve_values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300)


@given(curve_values, st.integers(1, 120))
def test_a_curve_has_its_width_and_spans_its_range(values, width):
    steps = list(range(5, 5 + len(values)))
    curve = sparkline(steps, values, width, (5, steps[-1]))
    assert len(curve.blocks) == min(width, len(values))
    assert set(curve.blocks) <= set(BLOCKS)
    assert min(values) - 1e-6 <= curve.low <= curve.high <= max(values) + 1e-6
    if curve.high > curve.low:
        assert {BLOCKS[0], BLOCKS[-1]} <= set(curve.blocks)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=200), st.integers(1, 80))
def test_what_rises_is_drawn_rising(values, width):
    curve = sparkline(range(len(values)), sorted(values), width, (0, len(values) - 1))
    assert list(curve.blocks) == sorted(curve.blocks, key=BLOCKS.index)


@given(st.integers(0, 400))
def test_wherever_the_log_is_cut_there_is_a_view(tmp_path_factory, cut):
    """A run appends while it is watched."""
    run = make_run(tmp_path_factory.mktemp("cut"), 3)
    content = (run / "metrics.jsonl").read_bytes()
    at = cut * len(content) // 400
    (run / "metrics.jsonl").write_bytes(content[:at])
    complete = content[:at].count(b"\n")
    assert len(read_snapshot(run).run.records) in (
        complete,
        complete + 1,
    )  # a last line without its end may be whole
    shown(run)


@settings(max_examples=25)
@given(
    width=st.integers(60, 250),
    height=st.integers(24, 60),
    last=st.integers(0, 120),
    age=st.sampled_from((0, 999)),
)
def test_it_fits_the_terminal(tmp_path_factory, width, height, last, age):
    run = make_run(
        tmp_path_factory.mktemp("fits") / ("deep" * 20), last, age=age, log="a word " * 50 + "\n" * 3
    )
    link(run, "actor_latest", "checkpoint-40")
    link(run, "best", "checkpoint-20")
    lines = shown(run, width, height).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < height


# -- states


@pytest.mark.parametrize(
    ("last", "age", "log", "state", "reason"),
    [
        (None, 0, "", "starting", "no figures yet"),
        (None, 200, "", "starting", "a large model takes minutes to load"),
        (None, 400, "", "stalled", "but not for ever"),
        (47, 50, "", "running", "a step takes 4 s, and silence of a minute is nothing yet"),
        (47, 95, "", "stalled", "more than a minute, and than three steps with an evaluation"),
        (47, 20, "Traceback (most recent call last):\n  boom\n", "failed", "an error, and silence"),
        (None, 20, "ValueError: no such model\n", "failed", "before the first step, too"),
        (
            47,
            0,
            "Traceback (most recent call last):\n  boom\n",
            "running",
            "it goes on: the error was survived",
        ),
        (47, 20, "ERROR x\n" + "fine\n" * 50, "running", "an error further up was survived"),
        (47, 20, "no errors: 0\n", "running", "a word about errors is none"),
        (100, 999, "", "stalled", "the last step, but its checkpoint is not there"),
    ],
)
def test_states(tmp_path, last, age, log, state, reason):
    assert read_snapshot(make_run(tmp_path / "run", last, age=age, log=log)).state == state, reason


def test_long_steps_are_no_stall(tmp_path):
    run = make_run(tmp_path / "run", 1)
    line = {"step": 2, "split": "train", "timing_s/step": 4000.0}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    now = time.time()
    assert read_snapshot(run, now + 3600).state == "running"
    assert read_snapshot(run, now + 5 * 3600).state == "stalled"


@pytest.mark.parametrize(
    ("engine", "checkpoint", "command"),
    [
        (
            "local",
            "checkpoint-200",
            "rmg eval --model {run}/actor_latest --data val.parquet --train train.parquet",
        ),
        ("verl", "global_step_100/actor", "rmg merge {run}/actor_latest {run}/merged"),
    ],
)
def test_a_finished_run_names_the_next_command(tmp_path, engine, checkpoint, command):
    """The local engine counts updates in its checkpoints' names, two a step here; verl counts steps."""
    run = make_run(tmp_path / "run", 100, age=9999, engine=engine)
    link(run, "actor_latest", checkpoint)
    snapshot = read_snapshot(run)
    assert (snapshot.state, snapshot.latest.step) == ("finished", 100)
    done = CliRunner().invoke(app, [str(run)])
    assert done.exit_code == 0
    assert done.output.splitlines()[-1] == f"Next:  {command.format(run=run)}"


def test_a_half_trained_checkpoint_does_not_finish_it(tmp_path):
    run = make_run(tmp_path / "run", 100)
    link(run, "actor_latest", "checkpoint-160")
    assert read_snapshot(run).state == "running"  # step 80


# -- figures


def test_time_left_counts_steps_and_evaluations(tmp_path):
    snapshot = read_snapshot(make_run(tmp_path / "run", 47))
    assert snapshot.seconds == 47 * 4 + 5 * 8
    assert snapshot.seconds_left == 53 * 4 + 6 * 8  # after the steps 50, 60, … 100


@pytest.mark.parametrize(
    ("log", "limit", "epochs", "expected", "reason"),
    [
        ("", None, 1, 12, "100 rows in batches of 8, the last ones dropped"),
        ("", None, 2.5, 30, "epochs"),
        ("", 50, 1, 6, "a limit"),
        ("x WARNING 10 training prompts are over data.max_prompt_length and left out", None, 1, 11, "local"),
        ("(T pid=1) 10 of 100 prompts are over data.max_prompt_length=9", None, 1, 11, "verl"),
        ("(T pid=1) 10 of 90 prompts are over data.max_prompt_length=9", None, 1, 12, "the held-out ones"),
    ],
)
def test_steps_follow_from_the_rows(tmp_path, log, limit, epochs, expected, reason):
    (tmp_path / "train.jsonl").write_text('{"input": "q", "output": "a"}\n' * 100)
    run = make_run(
        tmp_path / "runs" / "one",
        log=log,
        data={"train": "train.jsonl", "limit": limit},  # meant from a folder above
        train={"batch_size": 8, "mini_batch_size": 4, "epochs": epochs},
    )
    snapshot = read_snapshot(run)
    assert (snapshot.total, snapshot.exact) == (expected, False), reason


def test_steps_that_the_run_has_logged_are_exact(tmp_path):
    """Of pairs there are fewer than rows: both orders are one, and ties may be left out."""
    said = "2026-01-01 00:00:00,000 INFO rm_gallery.train: 7 steps on 63 pairs\n"
    run = make_run(tmp_path / "run", log=said, data={"train": "train.jsonl"}, train={"batch_size": 8})
    assert (read_snapshot(run).total, read_snapshot(run).exact) == (7, True)


def test_a_scalar_run_shows_its_accuracy(tmp_path):
    run = make_run(tmp_path / "run", None, method="bradley_terry", train={"max_steps": 40, "batch_size": 8})
    lines = []
    for step in range(21):
        figures = {"loss": 0.7 - step / 100, "accuracy_untied": 0.5 + step / 100, "reward/gap": step / 10}
        if step % 10 == 0:
            lines.append({"step": step, "split": "val", **figures, "seconds": 1.0})
        if step:
            lines.append({"step": step, "split": "train", **figures, "timing_s/step": 1.0})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    link(run, "actor_latest", "checkpoint-20")
    text = shown(run)
    assert "untied accuracy" in text
    assert "reward gap" in text
    assert "latest checkpoint  step 20 · held-out untied accuracy 0.700 · checkpoint-20" in text


def test_without_the_rows_there_is_no_end(tmp_path):
    run = make_run(tmp_path / "run", 5, age=999, train={"batch_size": 8, "mini_batch_size": 4})
    snapshot = read_snapshot(run)
    assert (snapshot.total, snapshot.seconds_left) == (None, None)
    assert "step 5\n" in shown(run)
    assert "finished, or stalled" in shown(run)


def test_checkpoints(tmp_path):
    run = make_run(tmp_path / "run", 47)
    link(run, "actor_latest", "checkpoint-80")
    (run / "best").symlink_to("checkpoint-60")  # which is gone
    snapshot = read_snapshot(run)
    assert (snapshot.latest.step, snapshot.latest.name) == (40, "checkpoint-80")
    assert snapshot.best is None
    assert "latest checkpoint  step 40 · held-out reward 0.520 · checkpoint-80" in shown(run)


def test_the_log_is_shown_as_a_terminal_showed_it(tmp_path):
    log = "\x1b[36m(T pid=7)\x1b[0m first\nProgress: 1%\rProgress: 45%\r\n[bold]ValueError: boom[/bold]\n"
    text = shown(make_run(tmp_path / "run", 47, age=99, log=log))
    assert text.splitlines()[-3:] == ["(T pid=7) first", "Progress: 45%", "[bold]ValueError: boom[/bold]"]
    assert "an error in the log, and nothing new for 99 s" in text


def test_a_healthy_run_shows_no_log(tmp_path):
    assert "all is well" not in shown(make_run(tmp_path / "run", 47, log="all is well\n"))


def test_how_it_looks(tmp_path):
    run = make_run(tmp_path / "run", 12)
    lines = [line.rstrip() for line in shown(run).splitlines()]
    assert lines[0] == "pointwise · grpo · local engine"
    assert lines[1] == "model  Qwen/Qwen2.5-0.5B-Instruct"
    assert lines[4].startswith("step 12 of 100 ━━━━")
    assert lines[4].endswith("12%")
    assert lines[5] == "running · 4.0 s a step · 64 s so far · about 7 min left"
    assert lines[7:12] == [
        "                       training                 held out",
        "                        step 12    step 11       step 10     step 0",
        "reward                    0.512 ↑    0.511         0.520 =    0.520",
        "accuracy                  0.400 =    0.400         0.410 =    0.410",
        "parse rate                0.990 =    0.990         1.000 =    1.000",
    ]
    assert "mean abs. error           0.988 ↓    0.989" in lines
    assert "gradient norm                 -          -" in lines  # logged, and undefined
    assert "tokens a second          48,211 =   48,211" in lines
    assert "reward             training   ▁▂▂▃▄▄▅▅▆▇▇█  0.501 .. 0.512" in lines
    assert "                   held out  ▁▁▁▁▁▁▁▁▁▁▁▁▁  0.520" in lines
    assert not any(line.startswith("loss") for line in lines)  # of GRPO it says nothing


@pytest.mark.parametrize("width", [56, 60, 67, 68, 80])
def test_a_number_is_never_cut(tmp_path, width):
    """A narrow terminal leaves whole columns out: half a number would be another one."""
    lines = shown(make_run(tmp_path / "run", 12), width).splitlines()
    (row,) = (line.split() for line in lines if line.startswith("mean abs."))
    assert row[3:] == ["0.988", "↓", "0.989"][: 3 if width >= 68 else 2]
    (row,) = (line.split() for line in lines if line.startswith("reward  ") and "training" not in line)
    assert row[1] == "0.512"
    assert row[4 if width >= 68 else 3] == "0.520"


def test_a_supervised_run_shows_its_loss(tmp_path):
    run = make_run(tmp_path / "run", None, method="sft")
    lines = [{"step": s, "split": "train", "loss": 2.0 / s, "token_accuracy": 0.5} for s in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = shown(run)
    assert "loss               training  █▃▁  0.667 .. 2.000" in text
    assert "held out" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.5, "0.500"),
        (1e-6, "1e-06"),
        (-2.5, "-2.500"),
        (61.23, "61.2"),
        (48211.4, "48,211"),
        (None, "-"),
    ],
)
def test_figures(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14, "3.1 s"), (95, "95 s"), (719, "12 min"), (11100, "3 h 5 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


# -- the command


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "there is no folder"),
        ({"run/notes.txt": ""}, "holds no run .*config.yaml.*verl itself is not read"),
        ({"run/metrics.jsonl": "{}\n"}, "holds no run"),
        ({"run/1120T0912/config.yaml": ""}, "its newest one is .*1120T0912"),
        ({"run/config.yaml": "trainer: {}\n"}, "config.yaml"),
    ],
)
def test_what_is_not_a_run_is_one_sentence(tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_snapshot(tmp_path / "run")


def test_once_and_without_a_terminal(tmp_path):
    run = make_run(tmp_path / "run")
    for options in (["--once"], []):
        done = CliRunner().invoke(app, [str(run), *options])
        assert done.exit_code == 0
        assert "step 47 of 100" in done.output
        assert "Next:" not in done.output


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_in_a_terminal_it_ends_with_the_run(tmp_path):
    import pty

    run = make_run(tmp_path / "run", 98)
    code = "import typer; from rm_gallery.cli.watch import watch; typer.run(watch)"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run), "--every", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm"},
    )
    os.close(theirs)
    output: list[bytes] = []

    def read() -> None:
        while True:
            try:
                output.append(os.read(ours, 65536))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_for(lambda: b"step 98 of 100" in b"".join(output))
        for line in records(100)[-3:]:
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        wait_for(lambda: b"step 100 of 100" in b"".join(output))
        assert process.poll() is None  # its checkpoint is still to come
        link(run, "actor_latest", "checkpoint-200")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        reader.join(5)
        os.close(ours)
    assert b"Next:  rmg eval --model" in b"".join(output)


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
