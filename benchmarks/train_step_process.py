"""Processes of benchmarks/train_step.py: one for each system, and verl's run with the memory of all its processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rm_gallery.core.train.log import read_log

PROGRAM = Path(__file__).resolve().parent / "train_step_system.py"
OVER = 77
"""A system's exit status where its memory limit was reached."""
BETWEEN_LOOKS = 2.0
"""Seconds between two looks at the memory of verl's processes."""


class Failed(Exception):
    """A system ended before it was told to; the sentence says how."""


class System:
    """A process that takes a step when asked to, and waits without work in between."""

    def __init__(self, spec: dict[str, Any], folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "spec.json"
        file.write_text(json.dumps({**spec, "folder": str(folder)}), encoding="utf-8")
        self.name = spec["system"]
        self.log = folder / "log"
        self.peak_gib: float | None = None
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self.ready = self._answer()

    def step(self) -> dict[str, Any]:
        """Take a step. Raises `Failed`."""
        try:
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self._answer()

    def finish(self) -> float:
        """End it; the peak of its memory in GiB, by the kernel. Raises `Failed`."""
        status = self._end()
        if status:
            raise Failed(self._how(status))
        return self.peak_gib

    def stop(self) -> None:
        """End it in whatever state it is."""
        if self.process.returncode is None:
            self.process.kill()
            self._end()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise Failed(self._how(self._end()))
        return json.loads(line)

    def _end(self) -> int:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.stdout.close()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
        self.peak_gib = used.ru_maxrss * unit / 2**30
        return self.process.returncode

    def _how(self, status: int) -> str:
        if status == OVER:
            return f"{self.name} needs more than the memory limit"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        print("\n".join(lines[-25:]), file=sys.stderr)
        # the error's name alone: the sentence behind it may hold a path, and this goes into the results
        error = lines[-1].partition(":")[0].strip() if lines else ""
        why = f" ({error})" if status > 0 and error.replace(".", "").isidentifier() else ""
        return f"{self.name} ended with status {status}{why}"


def run_verl(
    python: str, settings: dict[str, Any], folder: Path, environment: dict[str, str]
) -> dict[str, Any]:
    """`rmg train --engine verl` on the CPU: the lines of its `metrics.jsonl`, and its peak memory. Raises `Failed`."""
    folder.mkdir(parents=True, exist_ok=True)
    config, run = folder / "config.yaml", folder / "run"
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    words = ["train", str(config), "--engine", "verl", "--out", str(run)]
    with (folder / "log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [python, "-m", "rm_gallery", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
    found: list[float] = [0.0]
    threading.Thread(target=_look, args=(process, found), daemon=True).start()
    if status := process.wait():
        end = (folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]
        print(end, file=sys.stderr)
        raise Failed(f"verl ended with status {status}")
    return {"steps": _steps(run / "metrics.jsonl"), "peak_gib": found[0] / 2**30}


def _steps(metrics: Path) -> list[dict[str, Any]]:
    """Of each training step what a `System` answers."""
    answers = []
    for line in read_log(metrics):
        if line.get("split", "train") != "train" or line.get("timing_s/step") is None:
            continue
        seconds = line["timing_s/step"]
        phases = {
            name: line[f"timing_s/{name}"]
            for name in ("generate", "log_probs", "update")
            if line.get(f"timing_s/{name}") is not None
        }
        phases["other"] = max(0.0, seconds - sum(phases.values()))
        answer_tokens = line.get("response_length/mean")
        answers.append({"seconds": seconds, "phases": phases, "answer_tokens": answer_tokens})
    return answers


def _look(process: subprocess.Popen, found: list[float]) -> None:
    """Keep in `found[0]` the most that the process and all below it held, shared pages counted once."""
    import psutil

    while process.poll() is None:
        held = 0
        try:
            root = psutil.Process(process.pid)
            everyone: Sequence[Any] = [root, *root.children(recursive=True)]
        except psutil.Error:
            everyone = []
        for each in everyone:
            try:
                full = each.memory_full_info()
                held += getattr(full, "pss", full.rss)
            except psutil.Error:
                continue  # it ended meanwhile
        found[0] = max(found[0], held)
        time.sleep(BETWEEN_LOOKS)
