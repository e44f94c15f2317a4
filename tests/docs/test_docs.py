"""The documentation says what the code does: keys, defaults, metrics, commands, examples and links."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from pydantic import BaseModel

from rm_gallery.cli import app
from rm_gallery.core.data import DatasetConfig, Sample, converter_names, get_converter
from rm_gallery.core.data.config import ProcessConfig
from rm_gallery.core.data.config import load_config as load_data_config
from rm_gallery.core.data.filters import build_filters
from rm_gallery.core.evaluate import PAIRWISE, POINTWISE
from rm_gallery.core.evaluate.baselines import baseline_names
from rm_gallery.core.evaluate.predictions import columns
from rm_gallery.core.train.config import TrainConfig, check_config
from tests.conftest import ROOT, SHARED
from tests.docs.console import FENCE, commands

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
WITH_README = [*PAGES, ROOT / "README.md"]
FOLDERS = tuple(f"{name}/" for name in ("rm_gallery", "examples", "tutorials", "tests", "docs", "benchmarks"))
GENERATED = ("examples/data/exports", "benchmarks/results/methods.json")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return [block["body"] for block in FENCE.finditer(read(page)) if block["language"] == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def with_id(page: Path) -> str:
    return page.name


# -- keys of the two YAMLs, with their defaults


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, default as it stands in a YAML) of every leaf, and of every section that may be null."""
    for name, field in model.model_fields.items():
        nested = [
            part
            for part in (field.annotation, *get_args(field.annotation))
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        if not nested or default is None:
            yield prefix + name, str(default) if isinstance(default, Path) else default
        if nested:
            yield from keys(nested[0], f"{prefix}{name}.")


def documented(page: Path) -> dict[str, Any]:
    """(key → default) of the tables `| key | default | meaning |` of a page."""
    tables = re.findall(r"^\| key \| default \| meaning \|\n((?:\|.*\n)+)", read(page), re.MULTILINE)
    rows = re.findall(r"^\| `([\w.]+)` \| (required|`[^`]+`) \|", "".join(tables), re.MULTILINE)
    return {
        key: default if default == "required" else yaml.safe_load(default.strip("`")) for key, default in rows
    }


@pytest.mark.parametrize(
    ("page", "model", "prefix"),
    [("building_rm/train.md", TrainConfig, ""), ("data/process.md", DatasetConfig, "dataset.")],
)
def test_every_key_stands_in_its_page_with_its_default(page, model, prefix):
    assert documented(DOCS / page) == dict(keys(model, prefix))


# -- names


def recorder_names() -> list[str]:
    """The values of the recorder's `_NAMES`, read without importing transformers."""
    tree = ast.parse(read(ROOT / "rm_gallery/core/train/local/recorder.py"))
    [names] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_NAMES"
    ]
    return list(ast.literal_eval(names).values())


def named(page: str) -> set[str]:
    return set(inline_code(DOCS / page))


def test_every_metric_is_defined():
    assert {*POINTWISE, *PAIRWISE} <= named("evaluate.md")


def test_every_baseline_and_column_of_the_predictions_is_defined():
    assert {*baseline_names("pointwise"), *baseline_names("pairwise"), *columns()} <= named("evaluate.md")


def test_every_name_of_a_run_is_defined():
    assert len(recorder_names()) > 10
    assert {*recorder_names(), "timing_s/step", "tokens_per_second"} <= named("building_rm/train.md")


def test_every_converter_is_named():
    # the tests may have registered others
    shipped = [name for name in converter_names() if name.startswith(("helpsteer2", "columns"))]
    assert len(shipped) == 4
    assert set(shipped) <= named("data/process.md")


# -- examples


def untitled(page: Path, language: str) -> list[str]:
    """Those that are no file: test_console.py writes and uses the others."""
    found = [b for b in FENCE.finditer(read(page)) if b["language"] == language and not b["title"]]
    return [block["body"] for block in found]


def yaml_blocks() -> list[Any]:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in WITH_README
        for number, block in enumerate(untitled(page, "yaml"))
    ]


@pytest.fixture
def files_of_the_data_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the Python files that the page shows, named by their first line."""
    for block in blocks(DOCS / "data/process.md", "python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", yaml_blocks())
def test_the_code_accepts_every_yaml(block, files_of_the_data_page):
    content = yaml.safe_load(block)
    if "dataset" in content:
        path = files_of_the_data_page / "data.yaml"
        path.write_text(block, encoding="utf-8")
        config = load_data_config(path)
        get_converter(config.configs.source, config.configs.columns, config.name)
        build_filters(config.process)
    else:
        # a block may show some sections only
        check_config({"model": {"path": "m"}, "data": {"train": "t.parquet"}, **content}).build_task()


def test_the_converter_and_the_filter_of_the_data_page_work(files_of_the_data_page):
    assert all(len(block.splitlines()) < 40 for block in blocks(DOCS / "data/process.md", "python"))
    row = {"dialog": ["What is 2 + 3?"], "reply": "It is 5.", "rating": 5, "rater": "r1"}
    [sample] = get_converter("ratings.py:Ratings").convert(row)
    assert isinstance(sample, Sample)
    assert (dict(sample.labels), sample.metadata["rater"]) == ({"helpfulness": 4}, "r1")
    [keep] = build_filters(ProcessConfig(filters=["keep.py:asks_something"])).values()
    assert keep(sample)


# -- command lines


def command_lines(page: Path) -> list[str]:
    """Every `rmg …` of the shell blocks and of the inline code."""
    shell = "\n".join(blocks(page, "bash")).replace("\\\n", " ").replace("$(which rmg)", "rmg")
    lines = [*shell.splitlines(), *inline_code(page)]
    lines += [command for block in blocks(page, "console") for command, _ in commands(block)]
    found = (re.match(r"(?:accelerate launch .*?)?\b(rmg .*)", line.strip()) for line in lines)
    return [match[1] for match in found if match]


def check_command(line: str) -> None:
    """Raise AssertionError where the command or an option of it does not exist."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    anywhere = {"--help", "--debug"}
    options: dict[str, Any] = {}
    while True:
        options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
        if not hasattr(command, "commands") or not words or words[0].startswith("-"):
            break
        if words[0] == "COMMAND":  # stands for any
            return
        assert words[0] in command.commands, f"{line}: there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    while words:
        word = words.pop(0)
        name, equals, _ = word.partition("=")
        if not word.startswith("-") or name in anywhere:
            continue
        assert name in options, f"{line}: there is no option {name}"
        if not equals and not options[name].is_flag:
            assert words, f"{line}: {name} needs a value"
            words.pop(0)


@pytest.mark.parametrize("page", WITH_README, ids=with_id)
def test_every_command_line_exists(page):
    for line in command_lines(page):
        check_command(line)


def test_the_pages_show_commands():
    silent = {"reference.md", "overview.md", "example_report.md"}
    assert all(command_lines(page) for page in PAGES if page.name not in silent)


@pytest.mark.parametrize(
    "line", ["rmg evaluate", "rmg eval --modle m", "rmg data convert --config", "rmg data split f"]
)
def test_a_command_line_that_does_not_exist_is_found(line):
    with pytest.raises(AssertionError):
        check_command(line)


def test_every_option_of_eval_is_explained():
    command: Any = typer.main.get_command(app)
    options = {p.opts[0] for p in command.commands["eval"].params if p.opts[0].startswith("-")} - {"--help"}
    assert options <= named("evaluate.md")


# -- links


def anchors(page: Path) -> set[str]:
    """Of its headings, as mkdocs.yml and code hosts make them: each space is a hyphen, other signs go."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", WITH_README, ids=with_id)
def test_every_link_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}"


@pytest.mark.parametrize("page", WITH_README, ids=with_id)
def test_every_file_of_the_repository_that_is_named_exists(page):
    shell = shlex.split("\n".join(blocks(page, "bash")), comments=True)
    capital = r"[A-Z]+\.md"
    for word in [*inline_code(page), *shell]:
        name = word.removeprefix("./")
        if " " in name or name.startswith(GENERATED):
            continue
        if name.startswith(FOLDERS) or re.fullmatch(capital, name):
            assert list(ROOT.glob(name.rstrip("/"))), f"{page.name}: {name}"


class _Settings(yaml.SafeLoader):
    """mkdocs.yml names a function of its own; here it is nothing."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def pages_of(navigation: Any) -> Iterator[str]:
    for entry in navigation:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else pages_of(target)


def test_every_page_is_in_the_navigation():
    navigation = yaml.load(read(ROOT / "mkdocs.yml"), _Settings)["nav"]
    assert sorted(pages_of(navigation)) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


def test_the_links_of_the_guides_lead_here():
    """Their pages stand beside train.md: what they link to is there, with the sections that they name."""
    guides = sorted((SHARED / "spec").glob("*.md"))
    if not guides:
        pytest.skip("needs the guides in ../shared/spec, which are not part of the project")
    linked = 0
    for guide in guides:
        for path, anchor in re.findall(r"\]\(([\w./]+\.md)(?:#([^)]+))?\)", read(guide)):
            page = (DOCS / "building_rm" / path).resolve()
            assert page.is_file(), f"{guide.name}: {path}"
            assert not anchor or anchor in anchors(page), f"{guide.name}: {path}#{anchor}"
            linked += 1
    assert linked >= 11
