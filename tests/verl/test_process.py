"""A process that is followed: its errors in a sentence, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rm_gallery.core.train.verl.process import RunFailed, follow, printed


def run(code: str, tmp_path, polls=None):
    heard = [] if polls is None else polls
    follow(
        [sys.executable, "-c", code],
        environment={"GREETING": "hello"},
        log=tmp_path / "logs" / "training.log",
        poll=heard.append,
        every=0.05,
    )
    return (tmp_path / "logs" / "training.log").read_text()


def test_output_goes_to_the_log_and_the_last_poll_says_so(tmp_path):
    polls: list[bool] = []
    assert "hello" in run("import os; print(os.environ['GREETING'])", tmp_path, polls)
    assert polls[-1] is True
    assert not any(polls[:-1])


@pytest.mark.parametrize(
    ("printed_lines", "said"),
    [
        (["(TaskRunner pid=12) rm_gallery.core.errors.DataError: row 7 has no label"], "row 7 has no label"),
        (
            [
                "ray.exceptions.RayTaskError: wrapped",
                "(W pid=3, ip=10.0.0.1) ValueError: the cause",
                "KeyError: later",
            ],
            "ValueError: the cause",
        ),
        (["something went wrong"], "something went wrong"),
        ([], "it printed nothing"),
    ],
)
def test_a_failure_is_told_by_its_first_cause(tmp_path, printed_lines, said):
    code = f"import sys\nfor line in {printed_lines!r}: print(line)\nsys.exit(3)"
    with pytest.raises(RunFailed, match=f"status 3: .*{said}"):
        run(code, tmp_path)


def test_an_older_failure_in_the_same_log_is_not_told(tmp_path):
    with pytest.raises(RunFailed, match="first"):
        run("raise ValueError('first')", tmp_path)
    with pytest.raises(RunFailed, match="second"):
        run("raise ValueError('second')", tmp_path)


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_verl_does_not_outlive_us(tmp_path, signal_):
    """A run that went on unseen would write to the folder that the resumed one writes to."""
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    parent = (
        "import sys; from pathlib import Path; from rm_gallery.core.train.verl.process import follow\n"
        f"follow([sys.executable, '-c', {child!r}], environment={{}}, log=Path({str(tmp_path / 'log')!r}), "
        "poll=lambda last: None, every=0.05)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (tmp_path / "log").is_file():
        time.sleep(0.05)
    while time.monotonic() < deadline and not (text := (tmp_path / "log").read_text().strip()):
        time.sleep(0.05)
    os.kill(process.pid, signal_)
    process.wait(20)
    while time.monotonic() < deadline and not gone(int(text)):
        time.sleep(0.05)
    assert gone(int(text))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_what_a_shell_started_in_the_background_stops_at_once_too(tmp_path):
    """SIGINT is ignored there, and verl would inherit that and be waited for."""
    program = (
        "import signal, sys, threading, os; from pathlib import Path\n"
        "from rm_gallery.core.train.verl.process import follow\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"log = Path({str(tmp_path / 'log')!r})\n"
        "def poll(last):\n"
        "    if not last and log.read_text(): os.kill(os.getpid(), signal.SIGTERM)\n"
        "follow([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)'], environment={}, log=log, "
        "poll=poll, every=0.05)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert "Stopped" in done.stderr
    assert time.monotonic() - began < 25, "not after the grace of thirty seconds"


def test_the_printed_command_is_quoted_for_a_shell():
    text = printed(["data.train_files='a b.parquet'", "x=1"], {"VERL_PLATFORM": "cpu"})
    assert text.startswith("VERL_PLATFORM=cpu python3 -m verl.trainer.main_ppo")
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
