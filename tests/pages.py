"""The Python blocks of a page of the documentation, run one after the other, as cells of a notebook."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import textwrap
from pathlib import Path
from typing import Any

from tests.conftest import ROOT


def blocks(page: str, language: str = "python") -> list[str]:
    """The fenced blocks of `docs/{page}`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def table(page: str, header: str) -> list[list[str]]:
    """The cells of the rows of the table that begins so."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    [body] = re.findall(rf"^\| {re.escape(header)} \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in body.splitlines()]


def run_notebook(code: str, folder: Path) -> dict[str, Any]:
    """Run code whose `await` stands at the top, and give back its names. It is the body of a module in `folder`."""
    path = folder / "notebook.py"
    path.write_text(
        f"async def main():\n{textwrap.indent(code, '    ')}\n    return locals()\n", encoding="utf-8"
    )
    spec = importlib.util.spec_from_file_location("notebook", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names: dict[str, Any] = asyncio.run(module.main())
    return names
