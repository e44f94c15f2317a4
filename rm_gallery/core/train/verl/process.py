"""verl in a process of its own: started, followed through what it writes, and stopped with all it started."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import RMGalleryError

_GRACE = 30.0
"""Seconds that verl has to stop by itself before it is killed."""
_ERROR = re.compile(r"^(?:\(\w+ pid=\d+[^)]*\) )?((?:\w+\.)*\w*(?:Error|Exception|Failed|Died)\w*: .+)")
_WRAPPERS = ("RayTaskError", "RayActorError", "ActorDiedError")


class RunFailed(RMGalleryError):
    """verl ended with an error; the message gives the first one that it printed."""


class Stopped(RMGalleryError):
    """The user stopped the run."""


def command(words: Sequence[str]) -> list[str]:
    """What is run: verl's own entry point, so that it can be run by hand as well."""
    return [sys.executable, "-m", "verl.trainer.main_ppo", *words]


def printed(words: Sequence[str], environment: dict[str, str]) -> str:
    """The command for a shell, one override a line."""
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    lines = ["python3 -m verl.trainer.main_ppo", *(shlex.quote(word) for word in words)]
    return (variables + " " if variables else "") + " \\\n    ".join(lines)


def follow(
    argv: Sequence[str],
    *,
    environment: dict[str, str],
    log: Path,
    poll: Callable[[bool], Any],
    every: float = 1.0,
) -> None:
    """Run `argv`, its output going to `log`, calling `poll(False)` meanwhile and `poll(True)` at the end.

    Raises:
        RunFailed: it ended with another status than 0.
        Stopped: interrupted from the keyboard; the process and its children are gone.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        start = out.tell()
        process = subprocess.Popen(
            list(argv),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,  # a Ctrl-C reaches it through us, once, and not Ray's workers first
            preexec_fn=_prepare,
        )
        try:
            with _terminated_as_interrupted():
                while process.poll() is None:
                    time.sleep(every)
                    poll(False)
        except KeyboardInterrupt:
            raise Stopped(
                "stopped; the same command with --resume goes on from the last checkpoint"
            ) from None
        finally:
            _end(process)
            poll(True)
    if process.returncode:
        raise RunFailed(
            f"verl ended with status {process.returncode}: {_first_error(log, start)}. The whole log: {log}"
        )


class _terminated_as_interrupted:
    """A SIGTERM, as a scheduler or a Ray job sends it, ends the run as a Ctrl-C does."""

    def __enter__(self) -> None:
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    @staticmethod
    def _interrupt(*_: object) -> None:
        raise KeyboardInterrupt


def _prepare() -> None:
    """Where this process is killed, so is verl, and Ray's processes with it: none goes on writing to the run.

    And verl listens to our SIGINT (`_end`), which what a shell starts in the background is told to ignore.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _end(process: subprocess.Popen[bytes]) -> None:
    for ask in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        os.kill(process.pid, ask)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            continue


def _first_error(log: Path, start: int) -> str:
    """The first error of the output since byte `start`: what follows it are its consequences."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    found = [match[1] for line in lines if (match := _ERROR.match(line.strip()))]
    causes = [text for text in found if text.partition(":")[0].rpartition(".")[2] not in _WRAPPERS]
    if causes or found:
        return (causes or found)[0][:500]
    return lines[-1].strip() if lines else "it printed nothing"
