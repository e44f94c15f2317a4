"""No block of the documentation is merely shown: each is run, or what it names exists."""

from __future__ import annotations

import ast
import os
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from rm_gallery.core.data.config import load_config as load_data_config
from rm_gallery.core.errors import RMGalleryError
from rm_gallery.core.serve.schemas import ScoreRequest
from rm_gallery.core.train import load_config
from tests.conftest import ROOT
from tests.docs.console import FENCE
from tests.docs.test_docs import PAGES, WITH_README, check_command, read, with_id

DOCS = ROOT / "docs"
LANGUAGES = {"bash", "console", "csv", "json", "python", "text", "yaml", ""}
PYTHON = {
    "as_reward.md": "tests/rewards/test_docs.py",
    "benchmarks.md": "tests/benchmarks/test_docs.py",
    "building_rm/bradley_terry.md": "tests/docs/test_console.py",
    "data/process.md": "tests/docs/test_docs.py",
    "evaluate.md": "tests/docs/test_console.py",
    "graders.md": "tests/graders/test_docs.py",
    "models.md": "tests/models/test_openai_chat.py",
    "runner.md": "tests/runner/test_docs.py",
    "serve.md": "tests/serve/test_docs.py",
}
"""Pages whose Python blocks another file of tests runs."""
IMPORTED = {"building_rm/train.md", "cluster.md", "README.md"}
"""Pages whose Python blocks need the real model, or a hub: they compile, and what they import is there."""
SHELL = {".", "cd", "export", "mkdir", "ray", "ssh", "tail", "uvicorn"}
"""Not ours: nothing to check but the files that they name, which another test does."""


def titled(page: Path) -> str:
    return page.name if page.parent == ROOT else str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", WITH_README, ids=with_id)
def test_every_language_has_its_test(page):
    for block in FENCE.finditer(read(page)):
        assert block["language"] in LANGUAGES, block[0]
        if block["language"] in ("text", ""):
            assert not re.search(r"^(\$ |rmg |python |pip |make )", block["body"], re.MULTILINE), (
                f"a command in a block that is not tested:\n{block[0]}"
            )


# -- shell


def shell_lines(page: Path) -> list[str]:
    joined = "\n".join(b["body"] for b in FENCE.finditer(read(page)) if b["language"] == "bash")
    return [line for line in joined.replace("\\\n", " ").splitlines() if line.split("#")[0].strip()]


def check_line(line: str) -> None:
    """Raise AssertionError where a command, an option, a target or a file of a shell line does not exist."""
    for part in re.split(r"\s&&\s", line):
        words = shlex.split(part, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if not words:
            continue
        program = words[0]
        if program == "rmg":
            check_command(shlex.join(words))
            check_settings(words[1:], line)
        elif program == "accelerate":
            assert "rm_gallery" in words or "$(which rmg)" in words, line
            start = words.index("rm_gallery") if "rm_gallery" in words else words.index("$(which rmg)")
            check_command(shlex.join(["rmg", *words[start + 1 :]]))
            check_settings(words[start + 1 :], line)
        elif program == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            assert {word for word in words[1:] if "=" not in word} <= set(targets), line
        elif re.fullmatch(r"python[\d.]*", program):
            check_python(words[1:], line)
        elif program == "pip":
            check_extras(line)
        elif program == "sbatch" or program.startswith("examples/"):
            path = ROOT / (words[1] if program == "sbatch" else program)
            assert path.is_file(), line
            assert program == "sbatch" or os.access(path, os.X_OK), f"{line}: not executable"
        elif program == "curl":  # tests/serve post such bodies to such paths
            assert "Content-Type: application/json" in words, line
            ScoreRequest.model_validate_json(words[words.index("-d") + 1])
        else:
            assert program in SHELL, f"{line}: nothing tests commands of {program}"


def check_settings(words: list[str], line: str) -> None:
    """The recipe with the overrides of the line is a configuration."""
    if words[0] == "train":
        config, load = words[1], load_config
    elif words[:2] == ["data", "convert"] and words[2] in ("--config", "-c"):
        config, load = words[3], load_data_config
    else:
        return
    if (ROOT / config).is_file():
        given = [value for option, value in pairwise(words) if option == "--set"]
        try:
            load(ROOT / config, given)
        except RMGalleryError as error:
            raise AssertionError(f"{line}: {error}") from None


def check_python(words: list[str], line: str) -> None:
    if words[0] == "-m":
        assert words[1] in ("venv", "rm_gallery") or words[1].startswith("openrlhf."), line
        return
    path = ROOT / words[0]
    assert path.is_file(), f"{line}: there is no {words[0]}"
    options = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', path.read_text(encoding="utf-8")))
    assert {word.partition("=")[0] for word in words[1:] if word.startswith("--")} <= options, line


def check_extras(line: str) -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = settings.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = set(re.findall(r"^(\w+) = ", section, re.MULTILINE))
    for extras in re.findall(r"(?:\.|rm-gallery)\[([\w,]+)\]", line):
        assert set(extras.split(",")) <= known, line


@pytest.mark.parametrize("page", WITH_README, ids=with_id)
def test_every_shell_line_is_known(page):
    for line in shell_lines(page):
        check_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "frobnicate --all",
        "make quickstrat",
        "python benchmarks/methods.py --dta x",
        "python benchmarks/nothing.py",
        "pip install -e '.[trian]'",
        "accelerate launch -m rm_gallery train x.yaml --outt y",
        "examples/train/pointwise/run.sh",
        "cd x && rmg evaluate",
        "rmg train examples/train/pointwise/train.yaml --set train.max_step=1",
        "rmg data convert --config examples/train/pairwise/data_config.yaml --set export.sed=1",
    ],
)
def test_a_line_that_does_not_work_is_found(line):
    with pytest.raises(AssertionError):
        check_line(line)


# -- Python


def cells(page: Path) -> list[str]:
    return [b["body"] for b in FENCE.finditer(read(page)) if b["language"] == "python" and not b["title"]]


@pytest.mark.parametrize("page", WITH_README, ids=with_id)
def test_every_python_block_is_run_or_at_least_imported(page):
    name = titled(page)
    if not cells(page):
        return
    if name in PYTHON:
        tests = (ROOT / PYTHON[name]).read_text(encoding="utf-8")
        assert f'"{page.name}"' in tests or f'/ "{page.name}"' in tests or f'"{name}"' in tests
        return
    if any(b["language"] == "console" for b in FENCE.finditer(read(page))):
        return  # test_console.py runs them among the commands
    assert name in IMPORTED, f"nothing runs the Python blocks of {name}"
    for code in cells(page):
        tree = compile(code, name, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), name, "exec"), {})  # noqa: S102 - our own page


def test_the_lists_name_pages_that_have_such_blocks():
    having = {titled(page) for page in WITH_README if cells(page)}
    assert {*PYTHON, *IMPORTED} <= having | {"building_rm/train.md"}


def test_there_are_pages():
    assert len(PAGES) > 15
