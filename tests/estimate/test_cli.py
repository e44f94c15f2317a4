"""`rmg estimate` as it is typed: a table or figures, and a sentence for what cannot be estimated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rm_gallery.cli import main
from rm_gallery.core.estimate import MACHINES, Machine
from tests.estimate.runs import write_rows, write_run


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Path:
    """A training YAML over 12 rows."""
    values = {
        "task": "pointwise",
        "model": {"path": str(tiny_model)},
        "data": {"train": str(write_rows(tmp_path / "rows.jsonl", 12))},
        "train": {"batch_size": 4, "mini_batch_size": 4},
        "rollout": {"n": 4, "max_response_length": 24},
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def run(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["rmg", "estimate", *map(str, words)])
    status = 0
    try:
        main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_figures_and_text_say_the_same(recipe, monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, recipe, "--machine", "h100", "--price", 2, "--json")
    assert status == 0
    figures = json.loads(out)
    assert figures["steps"] == 3
    assert [part["phase"] for part in figures["phases"]] == [
        "prefill",
        "decode",
        "log_probs",
        "update",
        "optimizer",
    ]
    for end in range(3):
        step = sum(part["seconds"][end] for part in figures["phases"])
        assert figures["step_seconds"][end] == pytest.approx(step)
        assert figures["seconds"][end] == pytest.approx(3 * step)
        assert figures["cost"][end] == pytest.approx(3 * step * 2 / 3600)
    assert {each["mode"] for each in figures["judging"]} == {"expected", "greedy"}
    status, out, _ = run(monkeypatch, capsys, recipe, "--machine", "h100", "--price", 2)
    assert status == 0
    assert "3 steps of 4 prompts x 4 answers, from 12 prompts" in out
    assert "are assumptions: this project has measured nothing on a GPU" in out
    assert out.rstrip().endswith(f"Next:  rmg train {recipe}")


def test_no_data_is_needed_where_rows_and_prompts_are_given(recipe, monkeypatch, capsys):
    words = [recipe, "--set", "data.train=none.parquet", "--machine", "l4", "--json", "--rows", 400]
    status, out, _ = run(monkeypatch, capsys, *words, "--prompt", 500, "--response", 9)
    assert status == 0
    assert json.loads(out)["steps"] == 100
    status, _, err = run(monkeypatch, capsys, *words)
    assert status == 1
    assert err == "error: there is no file none.parquet; rmg data convert writes one\n"


def test_what_does_not_fit_is_followed_by_what_might(recipe, monkeypatch, capsys):
    large = [recipe, "--machine", "h100", "--set", "model.path=Qwen/Qwen2.5-14B-Instruct", "--prompt", 500]
    _, out, _ = run(monkeypatch, capsys, *large)
    assert "it does NOT fit" in out
    assert out.rstrip().endswith("--set model.lora.rank=16 --machine h100 --prompt 500")


def test_a_size_is_enough_to_estimate_and_training_needs_a_name(recipe, monkeypatch, capsys):
    words = [
        recipe,
        "--machine",
        "h100",
        "--set",
        "model.path=0.5B",
        "--rows",
        40,
        "--prompt",
        90,
        "--response",
        8,
    ]
    status, out, _ = run(monkeypatch, capsys, *words)
    assert status == 0
    assert out.rstrip().endswith(f"Next:  rmg train {recipe} --set model.path=Qwen/Qwen2.5-0.5B-Instruct")
    assert "guessed" not in out


def test_engine_verl_shards_the_weights_and_does_not_share_prompts(recipe, monkeypatch, capsys):
    words = [
        recipe,
        "--machine",
        "h100",
        "--set",
        "model.path=7B",
        "--rows",
        40,
        "--prompt",
        400,
        "--response",
        8,
    ]
    found = {}
    for engine in ("local", "verl"):
        _, out, _ = run(monkeypatch, capsys, *words, "--gpus", 4, "--set", f"engine={engine}", "--json")
        found[engine] = json.loads(out)
    memory = [found[engine]["memory_bytes"]["weights"] for engine in ("local", "verl")]
    assert memory[0] == 4 * memory[1]
    work = [
        {part["phase"]: part["operations"] for part in found[engine]["phases"]}
        for engine in ("local", "verl")
    ]
    assert work[0]["prefill"] == work[1]["prefill"]  # vLLM keeps what prompts begin with
    assert work[0]["update"] < work[1]["update"] / 2


def test_several_devices_are_followed_by_the_launcher(recipe, monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, recipe, "--machine", "a100", "--gpus", 4)
    assert "4 devices share each step's prompts evenly, each holding the whole model" in out
    assert f"Next:  accelerate launch --num_processes 4 -m rm_gallery train {recipe}" in out


def test_a_table_of_sizes_grows_downwards(recipe, monkeypatch, capsys):
    status, out, _ = run(
        monkeypatch, capsys, recipe, "--machine", "h100", "--sizes", "0.5B,1.5B,7B", "--json", "--price", 1
    )
    assert status == 0
    seconds = [each["seconds"][1] for each in json.loads(out)]
    assert seconds == sorted(seconds)
    _, out, _ = run(monkeypatch, capsys, recipe, "--machine", "h100", "--sizes", "0.5B,1.5B,7B", "--price", 1)
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen2.5-7B"]
    assert len({len(line) for line in lines[:4]}) == 1  # aligned to the right


def test_a_run_gives_the_rates(recipe, tiny_model, tmp_path, monkeypatch, capsys):
    folder = write_run(tmp_path / "before", tiny_model, [40, 60, 80], update=2e9)
    status, out, _ = run(monkeypatch, capsys, recipe, "--from", folder)
    assert status == 0
    assert "- update: measured in before: 2 GFLOP/s, the optimizer included" in out
    assert "\noptimizer" not in out
    assert "assum" not in out


def test_the_processor_is_measured(recipe, monkeypatch, capsys):
    found = Machine("this CPU", 1e11, 5e10, 1e10, 16e9, "measured now", gpu=False)
    monkeypatch.setattr("rm_gallery.core.estimate.machine.measure_cpu", lambda: found)
    status, out, _ = run(monkeypatch, capsys, recipe, "--machine", "cpu")
    assert status == 0
    assert "30% to 85% of 0.1 TFLOP/s, as in this project's runs on a CPU" in out


def test_measuring_gives_figures_of_a_processor(one_thread):
    from rm_gallery.core.estimate.machine import measure_cpu

    found = measure_cpu(0.05)
    assert not found.gpu
    assert 1e8 < found.float32 < 1e15
    assert 1e8 < found.bandwidth < 1e13
    assert found.memory > 2**28


def test_scalar_models_are_judged_by_one_pass(recipe, monkeypatch, capsys):
    words = [recipe, "--set", "method=regression", "--set", "rollout.n=1", "--machine", "h100", "--json"]
    status, out, _ = run(monkeypatch, capsys, *words)
    assert status == 0
    assert [each["mode"] for each in json.loads(out)["judging"]] == ["score"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--machine", "h10"],
            "there is no machine 'h10'; known are cpu, a100, h100, h200, l4, rtx4090. Did you mean 'h100'?",
        ),
        (["--machine", "h100", "--mfu", "40"], "--mfu is '40'; expected a share above 0 and at most 1"),
        (["--machine", "h100", "--mfu", "0.5..0.2"], "--mfu is '0.5..0.2'"),
        (["--machine", "h100", "--sizes", "8B"], "there is no size '8B'; known are 0.5B"),
        (["--machine", "h100", "--gpus", "3"], "train.mini_batch_size (4) must be a multiple of"),
        (
            ["--machine", "h100", "--set", "train.batch_size=40"],
            "12 training rows do not fill one batch: set train.batch_size to 12 or less",
        ),
        (
            ["--machine", "h100", "--set", "model.path=nowhere"],
            "there is no folder nowhere with a config.json here",
        ),
        (["--machine", "h100", "--rows", "3"], "3 training rows do not fill one batch"),
        (["--from", "nowhere"], "nowhere holds no run with a step done"),
    ],
)
def test_what_cannot_be_estimated_is_a_sentence(recipe, monkeypatch, capsys, words, said):
    status, out, err = run(monkeypatch, capsys, recipe, *words)
    assert status == 1
    assert not out
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["7B", "--machine", "h100"],
            "a model alone does not say how long its prompts are: add --prompt TOKENS",
        ),
        (["7B", "--prompt", "9", "--rows", "3"], "--sizes, --rows and --set are for a training YAML"),
        (["none.yaml"], "there is no configuration file none.yaml"),
    ],
)
def test_so_is_a_model_without_lengths_and_a_missing_yaml(monkeypatch, capsys, words, said):
    status, _, err = run(monkeypatch, capsys, *words)
    assert status == 1
    assert said in err


def test_judging_alone_costs_by_length_and_device(monkeypatch, capsys):
    words = ["7B", "--machine", "h100", "--price", 3, "--json"]
    figures = {}
    for prompt in (300, 600):
        _, out, _ = run(monkeypatch, capsys, *words, "--prompt", prompt)
        figures[prompt] = json.loads(out)["judging"][0]
    ratio = figures[600]["cost"][1] / figures[300]["cost"][1]
    assert 1.8 < ratio < 2.2
    _, out, _ = run(monkeypatch, capsys, *words, "--prompt", 600, "--gpus", 8)
    shared = json.loads(out)["judging"][0]
    assert shared["seconds"][1] == pytest.approx(figures[600]["seconds"][1] / 8)
    assert shared["cost"][1] == pytest.approx(figures[600]["cost"][1])


def test_a_long_answer_has_no_expected_mode(monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, "7B", "--machine", "h100", "--prompt", 600, "--response", 900)
    assert "expected" not in out


def test_every_machine_says_where_its_figures_are_from():
    assert all(machine.source for machine in MACHINES.values())
