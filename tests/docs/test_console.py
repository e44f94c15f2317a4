"""The commands, files and Python blocks of the pages work, one after the other, with models of a few thousand weights."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from rm_gallery.core.evaluate.benchmarks import base
from tests.conftest import ROOT
from tests.docs.console import FENCE, commands, matches, run_page
from tests.tiny import build_encoder

DOCS = ROOT / "docs"
PAGES = [
    str(page.relative_to(DOCS))
    for page in sorted(DOCS.rglob("*.md"))
    if any(block["language"] == "console" for block in FENCE.finditer(page.read_text(encoding="utf-8")))
]
LONGEST = 40
"""Lines of an example of how to add something."""


@pytest.fixture
def workshop(tiny_model, tmp_path, monkeypatch, one_thread) -> Path:
    """A folder with what the pages name: the two small models, and converted rows."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "smollm2-135m-instruct").symlink_to(tiny_model)
    build_encoder(models / "all-minilm-l6-v2", positions=1024)
    for name in ("examples", "rm_gallery"):
        (tmp_path / name).symlink_to(ROOT / name)
    rows = [
        (f"What is {i} + {k}?", f"It is {i + k + off}.", 4 - 2 * off)
        for i in range(6)
        for k in range(2)
        for off in (0, 1)
    ]
    write(tmp_path / "rows.csv", [("question", "answer", "stars"), *rows])
    pairs = [
        (f"What is {i} + 1?", f"It is {i + 1}.", f"It is {i}.", "left" if i % 3 else "tie") for i in range(12)
    ]
    write(tmp_path / "both.csv", [("question", "left", "right", "winner"), *pairs])
    from rm_gallery.core.data import DatasetConfig, convert_dataset

    sources = {
        "mine": (
            "columns_pointwise",
            "rows.csv",
            {"prompt": "question", "response": "answer", "helpfulness": "stars"},
        ),
        "pairs": (
            "columns_pairwise",
            "both.csv",
            {"prompt": "question", "response_1": "left", "response_2": "right", "preferred": "winner"},
        ),
    }
    for name, (source, file, columns) in sources.items():
        configs = {"source": source, "path": str(tmp_path / file), "columns": columns}
        export = {"output_dir": str(tmp_path / "data"), "split_ratio": {"train": 0.7, "test": 0.3}}
        convert_dataset(DatasetConfig.model_validate({"name": name, "configs": configs, "export": export}))
    base.benchmark_names()  # loads the shipped ones, which a later restoring must not lose
    monkeypatch.setattr(
        base, "_REGISTRY", dict(base._REGISTRY)
    )  # a page adds a benchmark, other tests count them
    return tmp_path


def write(path: Path, rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_works_as_it_stands(page, workshop, monkeypatch):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert run_page(text, workshop, monkeypatch) >= 2


def setup_and_cells(page: str, setup: list[str], workshop: Path, monkeypatch) -> None:
    """The Python blocks of a page, after commands that make what they need."""
    found = FENCE.finditer((DOCS / page).read_text(encoding="utf-8"))
    cells = "".join(block[0] + "\n" for block in found if block["language"] == "python")
    shown = "".join(f"```console\n$ {command}\n…\n```\n" for command in setup)
    assert run_page(shown + cells, workshop, monkeypatch) == len(setup)


def test_the_python_of_the_page_on_evaluation_runs(workshop, monkeypatch, capsys):
    train = (
        "rmg train examples/train/pointwise/train.yaml --set method=sft --set data.train=data/mine_train.parquet "
        "--set data.val=null --set model.path=models/smollm2-135m-instruct --set model.dtype=float32 "
        "--set train.batch_size=8 --set train.mini_batch_size=8 --set train.max_steps=1 "
        "--set rollout.max_response_length=32 --out runs/judge"
    )
    evaluate = (
        "rmg eval --model runs/judge/actor_latest --data data/mine_test.parquet --mode expected --out runs/"
    )
    setup_and_cells("evaluate.md", [train, evaluate + "before", evaluate + "after"], workshop, monkeypatch)
    assert "McNemar" in capsys.readouterr().out


def test_the_python_of_the_page_on_scalar_models_runs(workshop, monkeypatch, capsys):
    train = (
        "rmg train examples/train/bradley_terry/train.yaml --set data.train=data/pairs_train.parquet "
        "--set data.val=null --set model.path=models/smollm2-135m-instruct --set model.dtype=float32 "
        "--set train.batch_size=2 --set train.mini_batch_size=2 --set train.max_steps=1 --out runs/scalar"
    )
    setup_and_cells("building_rm/bradley_terry.md", [train], workshop, monkeypatch)
    score = capsys.readouterr().out.split()[-1]  # one label has no text beside its number
    assert math.isfinite(float(score))


def test_the_pages_that_show_a_way_from_rows_to_a_judge_are_among_them():
    ways = {"building_rm/generative_pointwise.md", "building_rm/generative_pairwise.md", "building_rm/sft.md"}
    assert {*ways, "troubleshooting.md", "extending.md"} <= set(PAGES)


def test_what_one_adds_is_short():
    files = [b for b in FENCE.finditer((DOCS / "extending.md").read_text(encoding="utf-8")) if b["title"]]
    python = {block["title"]: block["body"].count("\n") for block in files if block["language"] == "python"}
    assert set(python) == {"reviews.py", "rewards.py", "safety.py", "trivia.py"}
    assert max(python.values()) < LONGEST


@pytest.mark.parametrize(
    "sentence",
    [
        "no Ray cluster answers at ",
        "ray start --head --port=6379",
        "which is not installed: pip install 'rm-gallery[",
        "is installed and this needs verl ",
        "rows cannot be trained on, the first is ",
    ],
)
def test_a_sentence_that_no_command_here_can_bring_about_is_in_the_code(sentence):
    page = " ".join((DOCS / "troubleshooting.md").read_text(encoding="utf-8").split())
    assert sentence.strip() in page
    sources = (ROOT / "rm_gallery" / "core").rglob("*.py")
    # a sentence stands there in parts, with names between them
    assert any(sentence in source.read_text(encoding="utf-8").replace("[{extra}]", "[") for source in sources)


def test_a_block_is_taken_apart():
    block = "$ rmg a \\\n    --b\nsaid\n\n$ rmg c\n"
    assert commands(block) == [("rmg a --b", "said\n\n"), ("rmg c", "")]


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a … c", "a b c", True),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\n…\nd", "a\nd", True),
        ("a", "a\nb", False),  # what is printed beyond the block is not swallowed
        ("a … c", "a b d", False),
        ("(1.0)", "(1x0)", False),
    ],
)
def test_three_dots_stand_for_anything_and_nothing_else_does(expected, printed, same):
    assert matches(expected, printed) is same
