"""A run over an endpoint that fails, killed three times on the way: one result for each item, none lost, none twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.endpoint import Endpoint
from tests.runner.faulty import KINDS, Faults, answer, expected

KILLS = (0.2, 0.5, 0.8)
"""Of the items, how many are answered when the process is killed."""


@dataclass(frozen=True)
class Size:
    items: int
    max_concurrency: int
    timeout: float
    max_retries: int


def start(size: Size, endpoint: Endpoint, folder: Path) -> subprocess.Popen[bytes]:
    options = {
        "base_url": endpoint.base_url,
        "journal": str(folder / "grades.jsonl"),
        "out": str(folder / "out.json"),
        **vars(size),
    }
    return subprocess.Popen([sys.executable, "-m", "tests.runner.child", json.dumps(options)], cwd=ROOT)


def resident_mib(pid: int) -> float:
    """The largest resident memory so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def killed(size: Size, folder: Path, *, share: float, seconds: float) -> None:
    faults, peaks, began = Faults(share=share, seconds=seconds), [], time.monotonic()
    with Endpoint(answer=answer, script=faults) as endpoint:
        for answered in KILLS:
            process = start(size, endpoint, folder)
            while len(faults.answers) < answered * size.items:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.002)
            peaks.append(resident_mib(process.pid))
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            while endpoint.at_once:  # what it had sent is its own, not the next one's
                time.sleep(0.01)
            faults.generation += 1
        assert start(size, endpoint, folder).wait() == 0
        took = time.monotonic() - began

        report = json.loads((folder / "out.json").read_text())
        results = report["results"]
        failed = [result for result in results if "error" in result]
        # one result for each item, in its place
        assert len(results) == size.items
        assert all(r["score"] == expected(i) for i, r in enumerate(results) if "score" in r)
        # what remains undone has its cause
        causes = Counter(result["kind"] for result in failed)
        assert failed
        assert set(causes) <= KINDS
        assert len(failed) < 50 or set(causes) == KINDS
        assert all("127.0.0.1" in result["error"] for result in failed)
        # nothing that was answered is lost, and it stands in the journal once
        keys = [
            json.loads(line)["key"]
            for line in (folder / "grades.jsonl").read_bytes().splitlines()
            if line.endswith(b"}")
        ]
        assert len(keys) == len(set(keys)) == size.items - len(failed)
        # a kill repeats no more requests than were under way
        assert faults.repeats[0] == 0
        assert all(faults.repeats[i + 1] <= size.max_concurrency for i in range(len(KILLS)))
        assert max(*peaks, report["peak_gib"] * 1024) < 500
        print(
            f"\n{size.items} items: {took:.0f} s, {endpoint.count} requests, repeated per kill "
            f"{[faults.repeats[i + 1] for i in range(len(KILLS))]}, left undone {dict(causes)}, "
            f"peak {max(*peaks, report['peak_gib'] * 1024):.0f} MiB"
        )

        # another run makes only what failed, and nothing fails now
        faults.share, before = 0.0, endpoint.count
        assert start(size, endpoint, folder).wait() == 0
        assert endpoint.count - before == len(failed)
        results = json.loads((folder / "out.json").read_text())["results"]
        assert [result.get("score") for result in results] == [expected(i) for i in range(size.items)]


def test_three_kills_lose_nothing_and_repeat_no_more_than_was_under_way(tmp_path):
    killed(Size(300, max_concurrency=16, timeout=1.5, max_retries=1), tmp_path, share=0.4, seconds=20)


@pytest.mark.slow
def test_thousands_of_items_and_three_kills(tmp_path):
    killed(Size(4_000, max_concurrency=32, timeout=5, max_retries=2), tmp_path, share=0.3, seconds=20)
