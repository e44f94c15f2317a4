"""benchmarks/train_step.py: its formulas against figures worked out by hand, its rows, and a run from end to end."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.weights import load_tokenizer
from rm_gallery.core.tasks import PointwiseTask
from tests.conftest import ROOT

NAMES = ("counts", "rows", "process", "bench", "report")
sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    parts = SimpleNamespace(**{name: importlib.import_module(f"train_step_{name}") for name in NAMES})
    train_step = importlib.import_module("train_step")
finally:
    sys.path.remove(str(ROOT / "benchmarks"))
counts = parts.counts
SHAPE = counts.Shape(layer_weights=1000, head_weights=300, attention_width=8, layers=2)
sizes = st.integers(1, 200)


def by_hand(prompt: int, group: int, verdict: int) -> tuple[int, int, int]:
    """(tokens, pairs seen, positions scored) of a prompt and its samples, counted one by one."""
    seen_by = [position + 1 for position in range(prompt)]
    scored = {("prompt", prompt - 1)}
    for sample in range(group):
        for position in range(verdict - 1):  # the last token has nothing to predict
            seen_by.append(prompt + position + 1)
            scored.add((sample, position))
    return len(seen_by), sum(seen_by), len(scored)


@given(sizes, st.integers(1, 12), st.integers(1, 20))
def test_counts_are_those_of_counting(prompt, group, verdict):
    found = (counts.encoded(prompt, group, verdict), counts.seen(prompt, group, verdict))
    assert (*found, counts.scored(group, verdict)) == by_hand(prompt, group, verdict)


def test_operations_worked_out_by_hand():
    # 3 prompt tokens and 2 samples of 2: 5 tokens; they see 1 + 2 + 3 and twice 4; 3 positions are scored
    forward = 2 * 1000 * 5 + 2 * 300 * 3 + 4 * 8 * 2 * 14
    assert forward == 12_696
    assert counts.forward_operations(SHAPE, prompt=3, group=2, verdict=2) == forward
    step = {"prompts": 4, "prompt": 3, "group": 2, "verdict": 2}
    assert counts.step_operations(SHAPE, **step, reference=False) == 4 * 3 * forward
    assert counts.step_operations(SHAPE, **step, reference=True) == 4 * 4 * forward


@pytest.mark.parametrize(
    ("prompt", "group", "verdict", "line"),
    [
        (512, 8, 8, 4160 / 576),  # the default
        (512, 1, 8, 1.0),  # nothing is shared
        (0, 8, 8, 1.0),  # nothing to share
        (10, 3, 20, 90 / 70),
    ],
)
def test_ideal_line_by_hand(prompt, group, verdict, line):
    assert counts.ideal_speed_up(prompt, group, verdict) == pytest.approx(line)


@given(sizes, st.integers(1, 64), sizes)
def test_ideal_line_rises_with_the_group_and_never_above_it(prompt, group, verdict):
    here, more = (counts.ideal_speed_up(prompt, g, verdict) for g in (group, group + 1))
    assert 1 - 1e-12 <= here < more <= group + 1


@given(st.integers(1, 300), st.floats(0, 400))
def test_largest_divisor(number, most):
    found = counts.largest_divisor(number, most)
    assert number % found == 0
    assert found <= max(most, 1)
    assert not any(number % d == 0 for d in range(found + 1, int(min(most, number)) + 1))


@pytest.mark.parametrize("length", [240, 241, 400])
def test_rows_have_the_asked_length(tiny_model, tmp_path, length):
    file = tmp_path / "rows.jsonl"
    parts.rows.write_rows(file, str(tiny_model), 3, length)
    judge, task = LocalJudge(None, load_tokenizer(tiny_model)), PointwiseTask()
    prompts = judge.encode([task.messages(row) for row in load_rows(file)])
    assert [len(prompt) for prompt in prompts] == [length] * 3
    assert len(set(prompts)) == 3


def test_a_prompt_below_the_rubric_is_refused(tiny_model, tmp_path):
    with pytest.raises(SystemExit, match="rubric and chat template alone have"):
        parts.rows.write_rows(tmp_path / "rows.jsonl", str(tiny_model), 1, 20)


def test_grid_moves_one_setting_at_a_time():
    asked = train_step.parse(["--model", "m", "--grid", "--dtype", "float32", "bfloat16"])
    found = train_step.configurations(asked)
    assert len(found) == 2 * (1 + 4 + 3 + 3)  # the default stands in each list once
    first = found[0]
    assert all(sum(one[key] != first[key] for key in ("prompt", "group", "verdict")) <= 1 for one in found)


def test_grid_of_one_setting():
    found = train_step.configurations(train_step.parse(["--model", "m", "--grid", "group"]))
    assert [one["group"] for one in found] == [8, 4, 16, 32]
    assert len(train_step.configurations(train_step.parse(["--model", "m"]))) == 1


def measured(group: int, repeats: int, **more: object) -> dict[str, object]:
    fixed = {"dtype": "float32", "prompt": 512, "prompts": 8, "verdict": 8, "attention": None}
    return {**fixed, "group": group, "repeats": repeats, "systems": {"ours": {"seconds": 1.0}}, **more}


def test_plots_points_are_by_group_and_of_the_longest_run():
    found = [
        measured(8, 5),
        measured(8, 1),
        measured(4, 1),
        measured(16, 5, systems={"trl": {"failed": "x"}}),
    ]
    (row,) = parts.report.by_group({"configurations": found}).values()
    assert [(one["group"], one["repeats"]) for one in row] == [(4, 1), (8, 5)]


def test_verls_steps_are_read_from_its_log(tmp_path):
    lines = [
        {"step": 0, "split": "val", "accuracy": 0.5},
        {"step": 1, "split": "train", "timing_s/step": 9.0, "timing_s/generate": 4.0, "timing_s/update": 3.0},
    ]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (step,) = parts.process._steps(file)
    assert step["seconds"] == 9.0
    assert step["phases"] == {"generate": 4.0, "update": 3.0, "other": 2.0}


def test_a_system_that_ends_says_so_without_a_path(tmp_path, capsys):
    spec = {"system": "ours", "settings": {"model": {"path": str(tmp_path / "nowhere")}}}
    with pytest.raises(parts.process.Failed, match=r"ours ended with status 1 \(.*ConfigError\)$"):
        parts.process.System(spec, tmp_path / "work", dict(os.environ))
    assert "data" in capsys.readouterr().err  # the whole sentence is for whoever runs it


def run(*words: str) -> subprocess.CompletedProcess[str]:
    program = ROOT / "benchmarks" / "train_step.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(program), *words], capture_output=True, text=True, env=environment, check=False
    )


def test_from_end_to_end(tiny_model, tmp_path, capsys):
    out, plot = tmp_path / "found.json", tmp_path / "found.png"
    words = [
        "--model",
        str(tiny_model),
        "--prompt",
        "256",
        "--prompts",
        "2",
        "--group",
        "4",
        "--verdict",
        "3",
    ]
    words += ["--repeats", "2", "--side", "64", "--micro-batches", "4", "--systems", "ours", "trl"]
    words += ["--out", str(out)]
    done = run(*words, "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert str(tiny_model.parent) not in text
    (one,) = json.loads(text)["configurations"]
    assert list(one["systems"]) == ["ours", "trl"]
    assert one["ideal_speed_up"] == pytest.approx(259 * 4 / (256 + 12))
    for system in one["systems"].values():
        assert len(system["all_seconds"]) == 2
        assert sum(system["phases"].values()) == pytest.approx(system["seconds"], rel=0.5)
        assert min(system["phases"][name] for name in ("generate", "log_probs", "update")) > 0
        assert system["peak_gib"] > 0.1
        share = system["operations"] / system["seconds"] / one["matrix_product_per_second"]
        assert system["mfu"] == pytest.approx(share)
    # the tiny model has 2 layers of width 32, 2 of 4 heads with keys and values, an inner width of 64
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    vocabulary = len(load_tokenizer(tiny_model))
    shape = counts.Shape(2 * layer, 32 * vocabulary, attention_width=32, layers=2)
    expected = counts.step_operations(shape, 2, 256, 4, 3, reference=True)
    assert {system["operations"] for system in one["systems"].values()} == {expected}
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "ours" in done.stdout
    assert "tokens predict" in done.stdout

    assert train_step.main(words) == 0
    assert "measured already" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == text
