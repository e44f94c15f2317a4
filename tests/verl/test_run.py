"""The recipes' scripts with real verl, Ray and vLLM on the CPU: trained, killed, resumed, merged, evaluated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rm_gallery.core.data.rows import load_rows
from tests.conftest import ROOT
from tests.verl.conftest import rmg

pytestmark = [pytest.mark.verl, pytest.mark.slow, pytest.mark.usefixtures("verl_cpu")]
BATCH, N, STEPS = 4, 4, 2

SPY = """
import json, os
from rm_gallery.gallery.helpsteer2 import {task}
def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    with open({log!r}, "a") as file:
        row = (extra_info or {{}}).get("unique_id")
        file.write(json.dumps([row, ground_truth, bool((extra_info or {{}}).get("num_turns"))]) + "\\n")
    return {task}.compute_score(data_source, solution_str, ground_truth, extra_info)
"""


@pytest.fixture(scope="module", params=["pointwise", "pairwise"])
def finished(request, helpsteer2: Path, tiny_verl_model: Path, tmp_path_factory):
    """(kind, run folder, reward log, its calls before the kill) of a script's run.

    The pointwise one was killed after its first step and resumed; nothing of that depends on the task, and a start of
    Ray and vLLM takes a minute, so that the pairwise one ran through: None calls.
    """
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    log = folder / "reward_calls.jsonl"
    (folder / "reward_fn.py").write_text(SPY.format(task=kind.upper(), log=str(log)))
    settings = [
        "data.max_prompt_length=1500",
        "data.limit=60",
        "rollout.max_response_length=16",
        f"rollout.n={N}",
        f"train.batch_size={BATCH}",
        "train.mini_batch_size=2",
        f"train.max_steps={STEPS}",
        "train.eval_every=2",
        "train.save_every=1",
        "model.dtype=float32",
        "verl.trainer.device=cpu",
        "verl.data.val_max_samples=8",
        f"verl.reward.custom_reward_function.path={folder / 'reward_fn.py'}",
    ]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TRAIN_FILE": str(helpsteer2 / f"helpsteer2_{kind}_train.parquet"),
        "VAL_FILE": str(helpsteer2 / f"helpsteer2_{kind}_test.parquet"),
        "MODEL_PATH": str(tiny_verl_model),
        "TIMESTAMP": "run",
    }
    script = ROOT / "examples" / "train" / kind / f"run_{kind}.sh"
    command = [str(script), *(word for setting in settings for word in ("--set", setting))]
    run = folder / "checkpoints" / "run"

    counted = _killed(command, folder, environment, run, log) if kind == "pointwise" else None
    second = subprocess.run(
        [*command, *([] if counted is None else ["--resume"])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 0, second.stderr + _tail(run)
    assert "rmg merge" in second.stdout, "one obvious next command"
    return kind, run, log, counted


def _killed(command: list[str], folder: Path, environment: dict[str, str], run: Path, log: Path) -> int:
    """Start a run and kill it once the figures of its first step are written; how often it called the reward."""

    def stepped() -> bool:
        # verl writes the step's figures after its checkpoint: a kill in between would lose them
        figures = run / "verl" / "metrics-1.jsonl"
        return figures.is_file() and '"training/global_step"' in figures.read_text()

    first = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 400
    while first.poll() is None and not stepped() and time.monotonic() < deadline:
        time.sleep(0.1)
    saved = first.poll() is None and stepped() and (run / "actor_latest").exists()
    if first.poll() is None:
        os.kill(first.pid, signal.SIGKILL)
    said = first.communicate()[1]
    assert saved, said + _tail(run)
    time.sleep(3)  # its processes die with it
    return len(log.read_text().splitlines())


def _tail(run: Path) -> str:
    log = run / "logs" / "training.log"
    return "\n" + log.read_text(errors="replace")[-4000:] if log.is_file() else "\nno log"


def test_every_step_is_written_once(finished):
    _, run, _, _ = finished
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["split"] == "train"] == [1, 2]
    assert [r["step"] for r in records if r["split"] == "val"] == [0, 2]
    for record in records:
        assert record["reward/mean"] is not None
        assert record["accuracy"] is not None
        assert record["parse_rate"] is not None
    train = [r for r in records if r["split"] == "train"]
    assert all(r["rollout_probs_diff/mean"] < 1e-4 for r in train), (
        "vLLM and the trainer are one model, in float32"
    )
    assert train[0]["kl_loss"] == pytest.approx(0, abs=1e-4), "the first step starts from the reference"
    assert all(r["timing_s/generate"] > 0 and r["timing_s/update"] > 0 for r in train)


def test_the_reward_is_called_once_for_each_rollout_with_its_rows_truth(finished, helpsteer2: Path):
    kind, run, log, counted = finished
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    held_out = len((run / "verl" / "validation" / "2.jsonl").read_text().splitlines())
    if counted is None:
        assert len(calls) == held_out + 2 * BATCH * N + held_out
    else:
        # the first run: held-out rows, a step, and perhaps part of the second before the kill
        assert counted >= held_out + BATCH * N
        # the resumed run begins at the second step, and ends with the held-out rows
        assert len(calls) - counted == BATCH * N + held_out
    rows = {}
    for split in ("train", "test"):
        for row in load_rows(helpsteer2 / f"helpsteer2_{kind}_{split}.parquet"):
            rows[row["unique_id"]] = row["helpfulness"] if kind == "pointwise" else row["preferred"]
    for unique_id, truth, has_turns in calls:
        assert has_turns, "verl's own extra_info comes with ours"
        assert rows[unique_id] == (truth["helpfulness"] if kind == "pointwise" else truth)
    last_step = [
        json.loads(line) for line in (run / "verl" / "rollouts" / "2.jsonl").read_text().splitlines()
    ]
    assert len(last_step) == BATCH * N


def test_the_checkpoint_is_merged_loaded_and_evaluated(finished, helpsteer2: Path, tmp_path):
    kind, run, _, _ = finished
    assert (run / "actor_latest").resolve() == (run / "global_step_2" / "actor").resolve()
    test = helpsteer2 / f"helpsteer2_{kind}_test.parquet"
    refused = subprocess.run(
        rmg("eval", "--model", str(run / "actor_latest"), "--data", str(test)), capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "rmg merge" in refused.stderr, "an unmerged checkpoint is refused with the command that merges it"

    merged = tmp_path / "merged"
    subprocess.run(rmg("merge", str(run / "actor_latest"), str(merged)), check=True, capture_output=True)
    assert {"config.json", "generation_config.json", "rm_gallery.json", "README.md"} <= set(
        os.listdir(merged)
    )

    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoTokenizer.from_pretrained(merged).chat_template
    assert AutoModelForCausalLM.from_pretrained(merged).num_parameters() > 0

    rows = tmp_path / "rows.parquet"
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(test).slice(0, 6), rows)
    out = tmp_path / "eval"
    done = subprocess.run(
        rmg("eval", "--model", str(merged), "--data", str(rows), "--out", str(out)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["metrics"]["parse_rate"]["n"] == 6


def test_watch_shows_the_finished_run(finished):
    _, run, _, _ = finished
    shown = subprocess.run(
        rmg("watch", str(run), "--once"), check=True, capture_output=True, text=True
    ).stdout
    assert "2" in shown
    assert "rmg merge" in shown
