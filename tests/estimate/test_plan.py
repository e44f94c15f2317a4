"""Estimates: linear in what is done, ordered in their ranges, and what a run's own seconds say."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.estimate import (
    MACHINES,
    Range,
    Run,
    estimate_training,
    given_lengths,
    judge_modes,
    rates_from,
    rates_of,
    read_lengths,
)
from rm_gallery.core.estimate.machine import this_machine
from rm_gallery.core.estimate.rates import Rates
from rm_gallery.core.estimate.work import step_work
from tests.conftest import ROOT
from tests.estimate.runs import SMALL, config, write_rows, write_run

H100 = rates_of(MACHINES["h100"], "bfloat16")
KNOWN = Rates(Range(1e9, 2e9, 3e9), Range(1e9, 2e9, 3e9), Range(1e8, 2e8, 3e8), Range(1e9, 1e9, 1e9))
rows = st.integers(1, 50)
OURS = {**os.environ, "PYTHONPATH": str(ROOT)}


@given(st.sampled_from([KNOWN, H100]), rows, rows)
def test_a_run_is_linear_in_its_rows(rates, one, other):
    first, second = (
        estimate_training(config(), SMALL, given_lengths(4 * count, 100, 8), rates).seconds
        for count in (one, other)
    )
    assert first.middle / one == pytest.approx(second.middle / other)


@given(st.sampled_from([KNOWN, H100]), st.integers(2, 2000), st.integers(2, 2000))
def test_judging_longer_prompts_is_never_cheaper(rates, one, other):
    short, long = sorted((one, other))
    for a, b in zip(
        *(judge_modes(None, SMALL, given_lengths(1, prompt, 8, tree=6), rates) for prompt in (short, long)),
        strict=True,
    ):
        assert a.mode == b.mode
        assert a.seconds.middle <= b.seconds.middle


@given(
    st.sampled_from([KNOWN, H100]),
    st.sampled_from(["grpo", "exact", "sft", "regression"]),
    st.integers(2, 900),
)
def test_ranges_are_in_order_and_hold_their_middle(rates, method, prompt):
    found = estimate_training(config(method=method), SMALL, given_lengths(40, prompt, 8, tree=6), rates)
    for value in (found.step, found.seconds, found.memory.peak, *(j.seconds for j in found.judging)):
        assert 0 < value.low <= value.middle <= value.high < math.inf


def test_more_devices_are_never_slower_nor_cheaper():
    seconds = [
        estimate_training(config(), SMALL, given_lengths(40, 400, 8), H100, gpus=gpus).seconds.middle
        for gpus in (1, 2, 4)
    ]
    assert seconds[0] >= seconds[1] >= seconds[2]
    assert seconds[0] <= 2 * seconds[1] <= 4 * seconds[2]


def test_a_small_model_does_not_fill_a_gpu():
    """Sixteen times fewer weights, and not sixteen times faster: kernels are handed over one by one."""
    tiny = estimate_training(config(), SMALL, given_lengths(40, 40, 8), H100)
    assert tiny.step.middle > 10 * tiny.phases[0].work.operations / H100.forward.middle


def test_prompts_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(ConfigError, match=r"multiple of train\.micro_batch_size x GPUs"):
        estimate_training(config(train__micro_batch_size=2), SMALL, given_lengths(40, 100, 8), H100, gpus=4)


def test_fewer_rows_than_a_batch_are_refused():
    with pytest.raises(ConfigError, match="do not fill one batch"):
        estimate_training(config(), SMALL, given_lengths(3, 100, 8), H100)


def test_held_out_rows_are_judged_at_the_start_and_the_end():
    without = estimate_training(config(), SMALL, given_lengths(40, 100, 8), KNOWN)
    held = estimate_training(config(), SMALL, given_lengths(40, 100, 8, held_out=50), KNOWN)
    judged = without.judging[-1].seconds.middle * 50 / 1e6
    assert held.evaluations == 2
    assert held.seconds.middle == pytest.approx(without.seconds.middle + 2 * judged)


# -- calibration


def test_a_run_gives_back_the_rates_that_it_was_made_of(tmp_path, tiny_model):
    folder = write_run(
        tmp_path / "run", tiny_model, [40, 200, 80, 120, 90], forward=3e9, update=2e9, decode=5e7
    )
    found = rates_from(Run.read(folder))
    assert found.forward.middle == pytest.approx(3e9, rel=0.02)
    assert found.update.middle == pytest.approx(2e9, rel=0.02)
    assert found.decode.middle == pytest.approx(5e7, rel=0.05)
    assert found.forward.low < found.forward.middle < found.forward.high


def test_a_run_predicts_a_longer_one(tmp_path, tiny_model):
    short = Run.read(write_run(tmp_path / "short", tiny_model, [40, 50, 60, 70]))
    long = Run.read(write_run(tmp_path / "long", tiny_model, [400, 500, 600]))
    rates = rates_from(short)
    for step in long.steps:
        told = sum(rates.seconds(work, long.model.layers).middle for work in step.work)
        assert told == pytest.approx(step.record["timing_s/step"], rel=0.05)


def test_what_a_run_did_not_time_is_not_made_up(tmp_path, tiny_model):
    run = Run.read(write_run(tmp_path / "sft", tiny_model, [40, 50, 60], method="sft"))
    rates = rates_from(run)
    assert rates.decode is None
    assert rates.forward == rates.update
    with pytest.raises(ConfigError, match="decode was not timed in sft: add --machine"):
        estimate_training(config(), SMALL, given_lengths(40, 100, 8), rates)
    [expected, greedy] = judge_modes(None, SMALL, given_lengths(1, 100, 8, tree=6), rates)
    assert expected.seconds is not None
    assert greedy.seconds is None
    assert "not timed" in greedy.why
    assert rates_from(run, H100).decode == H100.decode


def test_a_judge_reads_as_fast_as_its_run_did(tmp_path, tiny_model):
    rates = rates_from(Run.read(write_run(tmp_path / "run", tiny_model, [100] * 5)))
    [expected, _] = judge_modes(None, SMALL, given_lengths(1, 100, 8, tree=6), rates)
    assert expected.seconds.middle == pytest.approx(expected.operations / rates.forward.middle)
    assert expected.seconds.low < expected.seconds.middle < expected.seconds.high


def test_a_step_that_took_long_is_named_and_does_not_move_the_median(tmp_path, tiny_model):
    folder = write_run(tmp_path / "run", tiny_model, [100] * 5)
    before = rates_from(Run.read(folder))
    run = Run.read(folder)
    slow = run.steps[-1]
    slept = {**slow.record, "timing_s/step": 9 * slow.record["timing_s/step"]}
    slept |= {"timing_s/update": slept["timing_s/step"]}
    after = rates_from(run.only([*run.steps[:-1], type(slow)(slow.step, slow.prompt, slow.work, slept)]))
    assert after.update.middle == pytest.approx(before.update.middle)
    assert any("step 5 of run took 9.0 times" in note for note in after.notes)


def test_a_folder_that_is_no_run_is_refused(tmp_path, tiny_model):
    with pytest.raises(ConfigError, match="holds no run with a step done"):
        Run.read(tmp_path)
    folder = write_run(tmp_path / "run", tiny_model, [])
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="no step with timing_s/step"):
        Run.read(folder)


def test_the_benchmark_checks_a_run_against_itself_and_another(tmp_path, tiny_model):
    held_out = write_rows(tmp_path / "rows.jsonl", 5)
    first = write_run(tmp_path / "one", tiny_model, [40, 300, 50, 200], rows=held_out, judged=7.0)
    runs = [first, write_run(tmp_path / "two", tiny_model, [40, 300, 50, 200])]
    out = tmp_path / "checks.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "estimate.py"), *map(str, runs), "--out", str(out)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=OURS).stdout
    assert "runs: 2 predictions, off by a factor of 1.0" in printed
    assert "held out: 1 predictions" in printed, "the other's rows are not there"
    assert any(line.startswith("held out") and " 7.0s " in line for line in printed.splitlines())
    assert out.is_file()


# -- lengths


def test_lengths_are_those_of_the_tokenizer_and_without_one_are_guessed(tmp_path, tiny_model):
    file = write_rows(tmp_path / "rows.jsonl", 10)
    counted = read_lengths(config(model__path=str(tiny_model), data__train=str(file)))
    guessed = read_lengths(config(data__train=str(file)))
    assert counted.rows == guessed.rows == 10
    # a token of this tokenizer is a character
    assert guessed.mean == pytest.approx(counted.mean / 4, rel=0.1)
    assert any("guessed, 4 characters each" in note for note in guessed.notes)
    assert counted.answer == len("<score>3</score>") + 1
    assert not counted.notes


def test_rows_that_are_too_long_are_left_out_and_counted(tmp_path, tiny_model):
    short, long = (write_rows(tmp_path / f"{n}.jsonl", 5, words=n) for n in (1, 300))
    both = tmp_path / "both.jsonl"
    both.write_text(short.read_text() + long.read_text())
    settings = config(model__path=str(tiny_model), data__train=str(both), data__max_prompt_length=1500)
    found = read_lengths(settings)
    assert found.rows == 5
    assert found.longest <= 1500
    assert "50.0% of the rows are over data.max_prompt_length and left out" in found.notes
    with pytest.raises(DataError, match="raise it"):
        read_lengths(config(model__path=str(tiny_model), data__train=str(long), data__max_prompt_length=5))


def test_a_judge_that_reasons_writes_as_much_as_it_may_unless_it_is_said(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", 4)
    settings = config(prompt__think=True, data__train=str(file), rollout__max_response_length=700)
    found = read_lengths(settings)
    assert found.answer == 700
    assert found.tree is None
    assert any("the most" in note for note in found.notes)
    assert read_lengths(settings, answer=90).answer == 90


def test_exact_of_a_judge_that_reasons_costs_grpos_samples_and_the_verdicts_behind_each(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", 4)
    works, lengths = {}, {}
    for method in ("grpo", "exact"):
        settings = config(
            method=method, prompt__think=True, data__train=str(file), rollout__max_response_length=200
        )
        lengths[method] = read_lengths(settings)
        works[method] = {work.phase: work for work in step_work(settings, SMALL, lengths[method])}
    assert works["exact"].keys() == works["grpo"].keys()
    assert works["exact"]["decode"] == works["grpo"]["decode"]
    assert lengths["exact"].tree is None, "at use there is no mode expected"
    share = works["exact"]["update"].operations / works["grpo"]["update"].operations
    assert 1 < share < 1 + 2 * lengths["exact"].behind / 200


def test_nothing_of_it_imports_torch():
    code = (
        "import sys, rm_gallery.core.estimate, rm_gallery.core.estimate.view; "
        "print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout
        == "[]\n"
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100 80 GB SXM"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("NVIDIA L40S", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA RTX 4000 Ada Generation", None),
    ],
)
def test_a_card_is_known_by_its_whole_name_and_has_the_memory_that_it_has(monkeypatch, name, found):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=42_000_000_000)
    )
    if found is None:
        with pytest.raises(ConfigError, match="not known here"):
            this_machine()
        return
    machine = this_machine()
    assert (machine.name, machine.memory) == (found, 42e9)
