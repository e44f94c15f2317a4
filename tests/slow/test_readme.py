"""The README's steps, typed as they stand, with the real model; only the trainings and evaluations are cut short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SHORTER = {"rmg train": " --set train.max_steps=2 --set data.limit=40", "rmg eval": " --limit 20"}


def commands() -> list[str]:
    """The lines of the block under "The same steps, one by one", without the one that enters the venv."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"## The same steps, one by one\n\n```bash\n(.*?)```", text, re.DOTALL)
    return [line for line in block.splitlines() if line and not line.startswith(". .venv")]


def test_the_steps_run_as_written(smollm2: Path, tmp_path: Path):
    (tmp_path / "rm_gallery").symlink_to(ROOT / "rm_gallery")  # the paths are those of a checkout
    lines = commands()
    assert len(lines) >= 9
    script = ["set -euo pipefail"]
    for line in lines:
        ends = [end for start, end in SHORTER.items() if line.startswith(start)]
        script.append(line + "".join(ends))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "steps" / "report.html").is_file()
    assert "the judge gives" in done.stdout, "the distribution of the last command"
    # what one command names as the next is what the block does next, or at least a command that exists
    for named in re.findall(r"[Nn]ext:\s+(rmg \w+)", done.stdout):
        assert named.split()[1] in {"judge", "eval", "data", "report", "train"}
