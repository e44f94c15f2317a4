"""The ```console blocks of a page, typed as they stand, in a folder with the files that the page shows.

A block holds commands after `$ ` and what they print; `…` stands for anything. A block with a title, as in
```yaml title="data.yaml", is a file, and a Python block without one is run as a cell of a notebook. Commands are run one after the other in this process, those of the page in one folder.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from rm_gallery.cli import main

FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^(?P=indent)```',
    re.MULTILINE | re.DOTALL,
)


def run_page(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Write the files, run the commands and the cells of a page, in the order in which they stand; the number of commands."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    number, names = 0, {}
    for block in FENCE.finditer(text):
        if block["title"]:
            path = folder / block["title"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["body"], encoding="utf-8")
        elif block["language"] == "console":
            for command, expected in commands(block["body"]):
                status, printed = run(command, monkeypatch)
                assert matches(expected, printed), f"$ {command}\n{printed}"
                assert (status == 0) == (not expected.lstrip().startswith("error:")), (
                    f"$ {command}: status {status}"
                )
                number += 1
        elif block["language"] == "python":
            code = compile(block["body"], "page.py", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(code, names)  # noqa: S307 - our own page
            if waiting is not None:
                asyncio.run(waiting)
    return number


def commands(block: str) -> list[tuple[str, str]]:
    """(command, what it prints) of a block."""
    assert block.startswith("$ "), f"a console block begins with a command: {block.splitlines()[0]}"
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        while command.endswith("\\"):
            more, _, printed = printed.partition("\n")
            command = f"{command[:-1].strip()} {more.strip()}"
        found.append((command, printed))
    return found


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The exit status, and stdout with stderr."""
    words = shlex.split(command, comments=True)
    out = io.StringIO()
    if words[0] == "cat":
        return 0, "".join(Path(name).read_text(encoding="utf-8") for name in words[1:])
    assert words[0] == "rmg", f"a console block runs rmg and cat: {command}"
    monkeypatch.setattr(sys, "argv", words)
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
    return status, out.getvalue()


def matches(expected: str, printed: str) -> bool:
    """Line by line without what stands at their ends; a line of nothing but `…` is any number of lines."""

    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    pattern = ""
    for line in lines(expected):
        if line.strip() == "…":
            pattern += "(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.split("…")) + "\n"
    return re.fullmatch(pattern, "".join(line + "\n" for line in lines(printed))) is not None
