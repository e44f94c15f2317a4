"""verl's log as our metrics: the lines are written by hand in the form of verl 0.9.1's `FileLogger` and dumps."""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rm_gallery.core.evaluate.report import read_inputs
from rm_gallery.core.tasks import get_task
from rm_gallery.core.train.run_folder import RunFolder
from rm_gallery.core.train.verl.launch import lost_figures
from rm_gallery.core.train.verl.metrics import NAMES, Mirror, to_records
from tests.conftest import ROOT

TASK = get_task("pointwise")
LONG_AGO = 1_700_000_000


def samples(step: int, prompts: int = 3, n: int = 4, shift: int = 0) -> list[dict]:
    """A dump of training samples as `_log_rollout_data` writes it: the reward's further keys are not in it."""
    rows = []
    for prompt in range(prompts):
        for session in range(n):
            said = (prompt + session * step + shift) % 6
            text = "no idea" if said == 5 else TASK.format(said)
            truth = {"helpfulness": prompt % 5}
            rows.append(
                {
                    "input": f"user\nquestion {prompt}\nassistant\n",
                    "output": text,
                    "gts": truth,
                    "score": TASK.compute_score("x", text, truth)["score"],
                    "step": step,
                    "uid": f"0f1e2d3c-4b5a-4678-9abc-def012345{prompt:03d}_{session}_0",
                }
            )
    return rows


def held_out(step: int, rows: int = 10) -> list[dict]:
    """A dump of held-out samples as `_validate` writes it: with every key of the reward function."""
    dump = []
    for row in range(rows):
        said, truth = (row * (step + 2)) % 5, row % 5
        text = TASK.format(said)
        result = TASK.compute_score("HelpSteer2", text, {"helpfulness": truth})
        dump.append(
            {
                "input": f"user\nquestion {row}",
                "output": text,
                "gts": {"helpfulness": truth},
                "step": step,
                "reward": result["score"],
                **result,
                "uid": f"0f1e2d3c-4b5a-4678-9abc-def012345{row:03d}_0_0",
            }
        )
    return dump


def mean(rows: list[dict], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def train_data(step: int, shift: int = 0) -> dict:
    """What `fit` logs of a step: `_compute_metrics` with those of the actor's update."""
    return {
        "global_seqlen/min": 9000.0,
        "actor/entropy": 0.154 + step / 1000,
        "training/rollout_probs_diff_valid": 1,
        "training/rollout_probs_diff_max": 0.21,
        "training/rollout_probs_diff_mean": 0.0031,
        "training/rollout_probs_diff_std": 0.01,
        "actor/pg_clipfrac": 0.002,
        "actor/ppo_kl": 0.0001,
        "actor/pg_loss": -0.01,
        "actor/entropy_loss": 0.16,
        "actor/kl_loss": 0.001 * step,
        "actor/kl_coef": 0.001,
        "actor/loss": -0.0099 + shift,
        "actor/grad_norm": 0.65,
        "actor/lr": 1e-06,
        "actor/perf/max_memory_allocated_gb": 23.5,
        "actor/perf/max_memory_reserved_gb": 30.25,
        "actor/perf/cpu_memory_used_gb": 101.0,
        "training/global_step": step,
        "training/epoch": 0,
        "critic/score/mean": mean(samples(step, shift=shift), "score"),
        "critic/score/max": 1.0,
        "critic/rewards/mean": 0.123,  # another number, to tell the two apart
        "response_length/mean": 8.25,
        "response_length/max": 12.0,
        "response_length/clip_ratio": 0.25,
        "prompt_length/mean": 210.0,
        "timing_s/gen": 4.5,
        "timing_s/old_log_prob": 1.5,
        "timing_s/ref": 1.25,
        "timing_s/adv": 0.01,
        "timing_s/update_actor": 6.0,
        "timing_s/save_checkpoint": 4.0,
        "timing_s/update_weights": 0.5,
        "timing_s/step": 20.0,
        "perf/total_num_tokens": 8000,
        "perf/time_per_step": 20.0,
        "perf/throughput": 50.0,
        "training/num_turns/mean": 2.0,
    }


def val_data(step: int, source: str = "nvidia/HelpSteer2") -> dict:
    """What `_val_metrics_update` makes of the dump: `acc` is the core variable where there is one."""
    rows = held_out(step)
    data = {f"val-core/{source}/acc/mean@1": mean(rows, "acc")}
    for key in (
        "reward",
        "score",
        "accuracy",
        "parsed",
        "abs_error",
        "predicted_helpfulness",
        "true_helpfulness",
    ):
        data[f"val-aux/{source}/{key}/mean@1"] = mean(rows, key)
    return {**data, "val-aux/num_turns/min": 2, "val-aux/num_turns/max": 2, "val-aux/num_turns/mean": 2.0}


def run_lines(last: int, *, every: int = 2, after: int = 0, shift: int = 0) -> list[dict]:
    """The lines of a run that starts after step `after`, evaluating first and every other step."""
    lines = [{"step": after, "data": val_data(after)}]
    for step in range(after + 1, last + 1):
        data = train_data(step, shift)
        if step % every == 0:
            data = {**val_data(step), **data, "timing_s/testing": 7.5}
        lines.append({"step": step, "data": data})
    return lines


def write_dumps(run: Path, steps: range, *, shift: int = 0) -> None:
    for name, make in (("rollouts", lambda s: samples(s, shift=shift)), ("validation", held_out)):
        folder = run / "verl" / name
        folder.mkdir(parents=True, exist_ok=True)
        for step in steps:
            if name == "validation" or step:
                write_dump(folder / f"{step}.jsonl", make(step))


def write_dump(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.utime(path, (LONG_AGO, LONG_AGO))


def as_bytes(lines: list[dict]) -> bytes:
    """As orjson writes it: without spaces, and NaN is null."""
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def make_run(path: Path, task: str = "pointwise") -> RunFolder:
    (path / "verl").mkdir(parents=True, exist_ok=True)
    config = {
        "task": task,
        "engine": "verl",
        "model": {"path": "m"},
        "data": {"train": "train.parquet", "val": "val.parquet"},
        "rollout": {"max_response_length": 12},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return RunFolder(path)


def written(run: RunFolder) -> list[dict]:
    return [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]


def recorder_names() -> set[str]:
    """Every name that the local engine writes. Read from its source: importing it takes transformers."""
    source = (ROOT / "rm_gallery/core/train/local/recorder.py").read_text(encoding="utf-8")
    table = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_NAMES"
    )
    timed = {f"timing_s/{name}" for name in ("generate", "log_probs", "reward", "update", "step")}
    return set(ast.literal_eval(table).values()) | timed | {"tokens_per_second", "memory/peak_gib"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The records of a run of 6 steps that nothing broke off."""
    run = make_run(tmp_path_factory.mktemp("whole"))
    write_dumps(run.path, range(7))
    (run.path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(6)))
    return Mirror(run).poll(last=True)


# -- properties


def test_every_name_is_one_that_the_local_engine_writes_too():
    assert set(NAMES.values()) - recorder_names() == {"rollout_probs_diff/mean"}


def test_every_figure_of_a_step_has_a_name_of_the_local_engine(whole):
    train = [record for record in whole if record["split"] == "train"]
    names = set().union(*train) - {"step", "split", "rollout_probs_diff/mean"}
    assert names <= recorder_names()
    # all of GRPO's but the seconds of the reward, which verl computes while it samples
    others = {"token_accuracy", "accuracy_untied", "reward/gap", "score/mean", "tie_parameter"}
    assert recorder_names() - names == others | {"timing_s/reward"}


def test_polling_again_changes_nothing(tmp_path, whole):
    run = make_run(tmp_path)
    write_dumps(tmp_path, range(7))
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(6)))
    mirror = Mirror(run, patience=0)
    assert mirror.poll() == whole == written(run)
    assert mirror.poll() == []
    assert Mirror(run).poll(last=True) == []  # also for a mirror that knows nothing
    assert written(run) == whole


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_wherever_the_stream_is_cut_the_records_are_the_same(tmp_path_factory, whole, data):
    run = make_run(tmp_path_factory.mktemp("cut"))
    write_dumps(run.path, range(7))
    content = as_bytes(run_lines(6))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    file = run.path / "verl/metrics-1.jsonl"
    mirror, got = Mirror(run, patience=0), []
    for cut in [*cuts, len(content)]:
        file.write_bytes(content[:cut])
        if data.draw(st.booleans()):
            mirror = Mirror(run, patience=0)
        got += mirror.poll()
    assert got == written(run) == whole


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_resumed_run_leaves_the_records_of_an_unbroken_one(tmp_path_factory, whole, data):
    run = make_run(tmp_path_factory.mktemp("resumed"))
    reached = data.draw(st.integers(2, 6), label="where it broke off")
    saved = data.draw(st.integers(0, reached // 2), label="checkpoint") * 2
    evaluates = data.draw(st.booleans(), label="evaluates before it goes on")
    first, second = (run.path / f"verl/metrics-{k}.jsonl" for k in (1, 2))
    # the lost steps were other ones: what is left of them would show
    lost = [line for line in run_lines(reached, shift=1) if line["step"] > saved]
    first.write_bytes(as_bytes([*run_lines(saved), *lost]))
    write_dumps(run.path, range(saved + 1))
    write_dumps(run.path, range(saved + 1, reached + 1), shift=1)
    mirror = Mirror(run, patience=0)
    if data.draw(st.booleans(), label="somebody watched the first part"):
        mirror.poll()
        assert {record["step"] for record in written(run)} == set(range(reached + 1))
    if data.draw(st.booleans(), label="by a new mirror"):
        mirror = Mirror(run, patience=0)
    write_dumps(run.path, range(saved + 1, 7))
    rest = as_bytes(run_lines(6, after=saved)[0 if evaluates else 1 :])
    cut = data.draw(st.integers(0, len(rest)))
    for part in (rest[:cut], rest):
        second.write_bytes(part)
        mirror.poll()
        if b"\n" in part:  # from the first line on, nothing of the lost steps is left
            assert written(run) == whole[: len(written(run))]
    assert written(run) == whole


def test_no_heavy_import():
    code = (
        "import sys; import rm_gallery.core.train.verl.metrics; "
        "print([m for m in ('verl', 'torch', 'ray', 'transformers', 'trl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# -- one line


def test_a_step_in_our_names():
    (record,) = to_records({"step": 3, "data": train_data(3)}, longest=12)
    assert record == {
        "step": 3,
        "split": "train",
        "reward/mean": mean(samples(3), "score"),  # the score; `critic/rewards` may have a penalty in it
        "loss": -0.0099,
        "kl_loss": 0.003,
        "entropy": 0.157,
        "grad_norm": 0.65,
        "lr": 1e-06,
        "clip_ratio": 0.002,
        "response_length/mean": 8.25,
        "response_length/clip_ratio": 0.25,
        "timing_s/generate": 4.5,
        "timing_s/log_probs": 2.75,  # the old policy's and the reference's
        "timing_s/update": 6.0,
        "timing_s/step": 16.0,  # 20 with the checkpoint's 4
        "tokens_per_second": 500.0,  # of all GPUs, in those 16 seconds
        "memory/peak_gib": 23.5,
        "rollout_probs_diff/mean": 0.0031,
    }


def test_training_figures_come_from_the_samples_texts():
    rows = samples(1)
    pad = {**rows[0], "output": "", "score": 0.0, "uid": "pad0123456789abcdef0123456789abcdef_0_0"}
    (record,) = to_records({"step": 1, "data": train_data(1)}, [*rows, pad], task=TASK)
    scored = [TASK.compute_score("x", row["output"], row["gts"]) for row in rows]
    assert record["accuracy"] == mean(scored, "accuracy")
    assert record["mae"] == mean(scored, "abs_error")  # an invalid one counts 4, as in the local engine
    assert record["parse_rate"] == mean(scored, "parsed") < 1
    assert 0 < record["reward/std"] < 1
    assert record["reward/zero_std_groups"] == 0.0


def test_spread_within_groups_is_that_of_trl():
    rows = [
        {"output": "", "score": score, "uid": f"{group}_{session}_0"}
        for group, scores in (("a", (0.0, 1.0)), ("b", (1.0, 1.0)))
        for session, score in enumerate(scores)
    ]
    (record,) = to_records({"step": 1, "data": train_data(1)}, rows)
    assert record["reward/std"] == pytest.approx(math.sqrt(0.5) / 2)  # n - 1; the mean of the groups
    assert record["reward/zero_std_groups"] == 0.5


@pytest.mark.parametrize(
    ("longest_seen", "expected", "reason"),
    [
        (12.0, 0.25, "at the limit: verl's share is that of the limit"),
        (9.0, 0.0, "verl compares with the batch's"),
    ],
)
def test_cut_off_responses(longest_seen, expected, reason):
    data = {**train_data(1), "response_length/max": longest_seen}
    (record,) = to_records({"step": 1, "data": data}, longest=12)
    assert record["response_length/clip_ratio"] == expected, reason


def test_what_is_unknown_is_left_out():
    data = {"training/global_step": 1, "actor/perf/max_memory_allocated_gb": 0.0, "timing_s/step": 3.0}
    (record,) = to_records({"step": 1, "data": data}, [])
    # no KL (kl_coef 0), no log-probabilities of vLLM, no dump; and on a CPU the stand-in for a GPU counts 0 GiB
    assert record == {"step": 1, "split": "train", "timing_s/step": 3.0}


def test_without_the_limit_the_cut_off_share_is_left_out():
    (record,) = to_records({"step": 1, "data": train_data(1)})
    assert "response_length/clip_ratio" not in record


def test_undefined_is_null():
    data = {
        **train_data(1),
        "critic/score/mean": None,
        "actor/grad_norm": math.inf,
        "actor/kl_loss": math.nan,
    }
    (record,) = to_records({"step": 1, "data": data})
    assert [record[name] for name in ("reward/mean", "grad_norm", "kl_loss")] == [None] * 3
    json.dumps(record, allow_nan=False)


# -- held-out figures


def test_figures_before_training_are_held_out_ones_alone():
    (record,) = to_records({"step": 0, "data": val_data(0)})
    rows = held_out(0)
    assert record == {
        "step": 0,
        "split": "val",
        "reward/mean": mean(rows, "reward"),
        "accuracy": mean(rows, "accuracy"),
        "parse_rate": mean(rows, "parsed"),
        "mae": mean(rows, "abs_error"),
    }


def test_the_dump_gives_every_figure_of_the_local_engine():
    from rm_gallery.core.evaluate import POINTWISE
    from rm_gallery.core.evaluate.calibration import CALIBRATION
    from rm_gallery.core.evaluate.metrics import OF_SEVERAL_ROWS

    (_, record) = to_records(run_lines(2)[2], validation=held_out(2), task=TASK)
    # a written verdict has no distribution, and the dump does not say which rows share a prompt
    of_one_row = set(POINTWISE) - OF_SEVERAL_ROWS - set(CALIBRATION)
    names = {"reward/mean" if name == "reward" else name for name in of_one_row}
    assert set(record) == {"step", "split", "seconds", "reward/best_constant", *names}
    labels = [row["gts"]["helpfulness"] for row in held_out(2)]
    earned = [sum(TASK.reward(score, label, "x") for label in labels) / len(labels) for score in range(5)]
    assert record["reward/best_constant"] == pytest.approx(max(earned))
    assert record["seconds"] == 7.5
    assert record["invalid"] == 0.0


def test_two_sources_need_the_dump():
    """verl averages by source and does not say how many rows each has."""
    data = {**val_data(0, "a"), **{key: 0.0 for key in val_data(0, "b/c") if "num_turns" not in key}}
    assert to_records({"step": 0, "data": data}) == [{"step": 0, "split": "val"}]
    (record,) = to_records({"step": 0, "data": data}, validation=held_out(0))
    assert record["accuracy"] == mean(held_out(0), "accuracy")


def test_a_pair_has_no_flip_rate_here():
    task = get_task("pairwise")
    rows = [
        {"output": task.format(said), "gts": truth, "score": float(said == truth), "uid": f"u{i}_0_0"}
        for i, (said, truth) in enumerate((("A", "A"), ("B", "A"), ("tie", "B")))
    ]
    (record,) = to_records({"step": 0, "data": {}}, validation=rows, task=task)
    assert record["accuracy"] == pytest.approx(1 / 3)
    assert {"macro_f1", "first_position_rate", "accuracy_untied"} <= set(record)
    assert not {"flip_rate", "mae"} & set(record)  # which rows are one pair is not in the dump


def test_a_truth_that_is_not_in_the_dump_is_not_guessed():
    rows = [{"output": TASK.format(3), "gts": None, "score": 1.0, "uid": "u_0_0"}]
    train, val = to_records(run_lines(2)[2], rows, rows, task=TASK)
    assert "accuracy" not in train
    assert val["accuracy"] == mean(held_out(2), "accuracy")  # the line's own


# -- the folder


def test_nothing_yet(tmp_path):
    run = make_run(tmp_path)
    assert Mirror(run).poll() == []
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(b"")
    assert Mirror(run).poll(last=True) == []
    assert not run.metrics.exists()


def test_a_step_that_was_saved_and_not_written_is_said(tmp_path):
    run = make_run(tmp_path)
    assert lost_figures(run, Mirror(run)) is None, "nothing is saved"
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(4)))
    latest = tmp_path / "latest_checkpointed_iteration.txt"
    latest.write_text("4")
    assert lost_figures(run, Mirror(run)) is None, "verl wrote the step that it goes on after"
    latest.write_text("5")
    said = lost_figures(run, Mirror(run))
    assert said is not None
    assert "step 5" in said
    assert "goes on at step 6" in said
    assert str(tmp_path / "global_step_5") in said


def test_best_is_the_best_of_the_checkpoints_that_are_kept(tmp_path):
    run = make_run(tmp_path)
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(6)))
    write_dumps(tmp_path, range(7))
    mirror = Mirror(run)
    mirror.poll(last=True)
    rewards = {r["step"]: r["reward/mean"] for r in written(run) if r["split"] == "val"}
    by_reward = sorted((2, 4, 6), key=lambda step: -rewards[step])
    assert len(set(rewards.values())) > 1
    assert not run.best.is_symlink(), "nothing is saved yet"
    for step in (2, 4, 6):
        actor = tmp_path / f"global_step_{step}" / "actor"
        actor.mkdir(parents=True)
        if step != by_reward[0]:
            (actor / "rm_gallery.json").write_text("{}")
    mirror.poll(last=True)
    assert run.best.resolve().parent.name == f"global_step_{by_reward[1]}", (
        "one without its card is not complete"
    )
    (tmp_path / f"global_step_{by_reward[0]}" / "actor" / "rm_gallery.json").write_text("{}")
    mirror.poll(last=True)
    assert run.best.resolve().parent.name == f"global_step_{by_reward[0]}"
    shutil.rmtree(tmp_path / f"global_step_{by_reward[0]}")
    mirror.poll(last=True)
    assert run.best.resolve().parent.name == f"global_step_{by_reward[1]}"


def test_a_line_waits_for_its_samples(tmp_path):
    """verl writes them from another thread, often after the line."""
    run = make_run(tmp_path)
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(1)[1:]))
    mirror = Mirror(run, settle=0)
    assert mirror.poll() == []
    dump = tmp_path / "verl/rollouts/1.jsonl"
    dump.parent.mkdir()
    dump.write_text("\n".join(json.dumps(row) for row in samples(1)[:5]))
    assert mirror.poll() == []  # half of them
    write_dump(dump, samples(1))
    (record,) = mirror.poll()
    assert (
        record["accuracy"]
        == to_records({"step": 1, "data": train_data(1)}, samples(1), task=TASK)[0]["accuracy"]
    )


@pytest.mark.parametrize("late", [{"last": True}, {}])
def test_a_line_does_not_wait_for_ever(tmp_path, late):
    run = make_run(tmp_path)
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(1)[1:]))
    (record,) = Mirror(run, patience=10 if late else 0).poll(**late)
    assert "accuracy" not in record
    assert record["loss"] == -0.0099


def test_a_reward_that_fails_on_the_samples_costs_their_figures_and_no_run(tmp_path, monkeypatch, caplog):
    """One's own may look at a source, which the dump of training samples does not hold."""
    run = make_run(tmp_path)
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(1)[1:]))
    write_dumps(tmp_path, range(2))
    mirror = Mirror(run)
    monkeypatch.setattr(mirror.task, "reward", lambda *_: {}[""])
    (record,) = mirror.poll(last=True)
    assert record["loss"] == -0.0099
    assert "accuracy" not in record
    assert "no figures of these samples: KeyError" in caplog.text


def test_samples_of_an_earlier_try_are_not_taken_for_those_of_the_step(tmp_path):
    """The resumed run overwrites them only after its line."""
    run = make_run(tmp_path)
    (tmp_path / "verl/metrics-2.jsonl").write_bytes(as_bytes(run_lines(1)[1:]))
    write_dumps(tmp_path, range(2), shift=1)
    mirror = Mirror(run)
    assert mirror.poll() == []
    write_dumps(tmp_path, range(2))
    (record,) = mirror.poll()
    assert "accuracy" in record


def test_the_numbers_of_the_files_are_numbers(tmp_path):
    run = make_run(tmp_path)
    for k, last in ((2, 2), (10, 4)):
        (tmp_path / f"verl/metrics-{k}.jsonl").write_bytes(as_bytes(run_lines(last, after=last - 2)))
    Mirror(run).poll(last=True)
    assert [record["step"] for record in written(run) if record["split"] == "train"] == [1, 2, 3, 4]


def test_half_a_line_of_a_mirror_that_was_killed(tmp_path, whole):
    run = make_run(tmp_path)
    write_dumps(tmp_path, range(7))
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(6)))
    text = "".join(json.dumps(record) + "\n" for record in whole)
    run.metrics.write_text(text[: len(text) // 2])
    Mirror(run).poll(last=True)
    assert written(run) == whole


def test_a_line_that_is_not_verls_is_named_in_the_log(tmp_path, caplog):
    run = make_run(tmp_path)
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(b'{"step": 1}\nnot json\n' + as_bytes(run_lines(1)))
    assert [record["step"] for record in Mirror(run).poll(last=True)] == [0, 1]
    assert caplog.text.count("metrics-1.jsonl") == 2


def test_a_report_of_a_verl_run(tmp_path):
    run = make_run(tmp_path)
    write_dumps(tmp_path, range(7))
    (tmp_path / "verl/metrics-1.jsonl").write_bytes(as_bytes(run_lines(6)))
    Mirror(run).poll(last=True)
    (log,) = read_inputs([tmp_path]).runs
    assert log.series("accuracy", "train")[0] == [1, 2, 3, 4, 5, 6]
    assert log.series("reward/mean", "val")[0] == [0, 2, 4, 6]
    assert "engine: verl" in log.config
