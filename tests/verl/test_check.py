"""`rmg verl check`: what verl 0.9.1 makes of a command line, and what would go wrong with it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

pytest.importorskip("hydra", reason="needs hydra, which comes with verl")
if importlib.util.find_spec("verl") is None:
    pytest.skip("needs verl 0.9.1: pip install 'rm-gallery[verl]'", allow_module_level=True)

from typer.testing import CliRunner

from rm_gallery.cli.verl import app
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.train.verl.check import Finding, compose, explain
from rm_gallery.core.train.verl.hydra_words import key_of
from tests.verl.guide import ACTOR, GUIDE, REF, ROLLOUT, right

RIGHT = right()


# -- explain


def test_of_the_guides_command_three_keys_have_no_effect():
    report = explain(GUIDE)
    changed = {finding.key: finding for finding in report.findings if finding.status != "ok"}
    assert changed == {
        key: Finding(
            key, value, "ignored", (f"{new}={value}",), "main_ppo takes rewards from the section reward alone"
        )
        for key, value, new in (
            ("reward_model.reward_manager", "naive", "reward.reward_manager.name"),
            ("custom_reward_function.path", "./reward_fn.py", "reward.custom_reward_function.path"),
            ("custom_reward_function.name", "compute_score", "reward.custom_reward_function.name"),
        )
    }
    assert [finding.key for finding in report.findings] == [key_of(word) for word in GUIDE]


def test_and_it_lacks_a_group_and_micro_batches():
    named = [sentence.split(" ")[0] for sentence in explain(GUIDE).problems]
    assert named == [
        f"{ROLLOUT}.n",
        f"{ACTOR}.ppo_micro_batch_size_per_gpu",
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
        f"{REF}.log_prob_micro_batch_size_per_gpu",
    ]


def test_with_all_that_put_right_there_is_nothing_left_to_say():
    report = explain(RIGHT)
    assert report.ok
    assert report.corrected == RIGHT


def test_what_stands_before_the_overrides_is_passed_over():
    launcher = [
        "ray",
        "job",
        "submit",
        "--address=http://x:8265",
        "--",
        "python3",
        "-m",
        "verl.trainer.main_ppo",
    ]
    assert explain([*launcher, *RIGHT]).ok


KINDS = [
    ("ray_init.num_cpus=8", "renamed", ("ray_kwargs.ray_init.num_cpus=8",), "a section that moved"),
    (
        "+ray_init.num_gpus=1",
        "ignored",
        ("+ray_kwargs.ray_init.num_gpus=1",),
        "a + makes verl take the old one",
    ),
    (
        "+custom_reward_function.reward_kwargs.k=2.0",
        "ignored",
        ("+reward.custom_reward_function.reward_kwargs.k=2.0",),
        "the reward's own parameters",
    ),
    (
        f"{ACTOR}.ppo_micro_batch_size=16",
        "renamed",
        (f"{ACTOR}.ppo_micro_batch_size_per_gpu=2",),
        "over 8 GPUs",
    ),
    (
        "trainer.remove_previous_ckpt_in_save=True",
        "renamed",
        ("trainer.max_actor_ckpt_to_keep=1", "trainer.max_critic_ckpt_to_keep=1"),
        "a switch becomes a number",
    ),
    ("trainer.remove_previous_ckpt_in_save=False", "removed", (), "off is the default"),
    (f"{ROLLOUT}.mode=sync", "removed", (), "a value that is gone"),
    (
        f"{ROLLOUT}.load_format=dummy_dtensor",
        "renamed",
        (f"{ROLLOUT}.load_format=dummy",),
        "a renamed value",
    ),
    (f"{ROLLOUT}.use_fire_sampling=False", "removed", (), "nothing like it"),
    (
        f"{ROLLOUT}.engine_kwargs.vllm.swap_space=8",
        "renamed",
        (f"+{ROLLOUT}.engine_kwargs.vllm.swap_space=8",),
        "+",
    ),
    (
        "+data.train_batch_size=96",
        "refused",
        ("data.train_batch_size=96",),
        "Hydra takes + for new keys only",
    ),
    ("data.train_batchsize=96", "refused", (), "unknown"),
    ("trainer.train_batch_size=96", "refused", (), "in another section"),
    (f"+{ROLLOUT}.enable_sleepmode=False", "refused", (), "the class of the section does not know it"),
    (f"+{ROLLOUT}.enable_sleep_mode=False", "ok", (), "the class knows it, though it is not listed"),
    ("+actor_rollout_ref.model.override_config.attn_implementation=sdpa", "ok", (), "a free section"),
    ("++trainer.wandb_proxy=http://proxy", "ok", (), "read where it is given"),
    ("~data.datagen", "refused", (), "there is nothing to delete"),
    ("hydra.run.dir=/tmp/x", "ok", (), "Hydra's own"),
    ("data.truncation=left", "ok", (), "there is a dataset class of one's own here, which may read it"),
]


@pytest.fixture(scope="module")
def findings():
    """Of all those words in one command."""
    words = [word for word, *_ in KINDS]
    return dict(zip(words, explain([*RIGHT, *words]).findings[len(RIGHT) :], strict=True))


@pytest.mark.parametrize(("word", "status", "replacement", "why"), KINDS, ids=[kind[0] for kind in KINDS])
def test_each_kind_of_key(findings, word: str, status: str, replacement: tuple[str, ...], why: str):
    finding = findings[word]
    assert (finding.status, finding.replacement) == (status, replacement), why
    assert finding.reason or status == "ok"


def test_verls_own_dataset_reads_no_truncation():
    words = [word for word in RIGHT if not word.startswith("data.custom_cls")]
    assert explain([*words, "data.truncation=left"]).findings[-1].status == "ignored"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("data.train_batchsize=96", "data.train_batch_size"),
        ("trainer.train_batch_size=96", "data.train_batch_size"),
        ("actor_rollout_ref.rollout.tensor_parallel_size=8", f"{ROLLOUT}.tensor_model_parallel_size"),
        (f"+{ROLLOUT}.enable_sleepmode=False", "enable_sleep_mode"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(word: str, hint: str):
    assert f"Did you mean '{hint}'?" in explain([word]).findings[0].reason


def test_a_key_of_today_that_is_given_stands_before_an_older_one():
    words = ["custom_reward_function.path=old.py", "reward.custom_reward_function.path=new.py"]
    assert explain(words).corrected == ("reward.custom_reward_function.path=new.py",)


# -- compose


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.train_batchsize=1"], r"data.train_batchsize is not a key of verl.*'data.train_batch_size'"),
        (["+data.train_batch_size=1"], r"verl has that key already; give it without the \+"),
        (["~data.foo"], "~data.foo: verl has no such key"),
        (["data.train_batch_size"], "is not key=value as Hydra reads it"),
        (["trainer.logger=[console"], "is not key=value as Hydra reads it"),
        (["data.train_files=a=b.parquet"], "stands in quotes of its own"),
        (["trainer.logger=console,wandb"], r"several runs to Hydra; for a list write trainer.logger=\[a,b\]"),
        (["--multirun"], "is an option"),
        (["=3"], "has no key"),
        (["model_engine=foo"], "model_engine=foo.*dp megatron"),
        (["data=5"], "cannot be made with data=5"),
    ],
)
def test_what_hydra_refuses_is_said_in_a_sentence(words: list[str], message: str):
    with pytest.raises(ConfigError, match=message) as error:
        compose(words)
    assert "\n" not in str(error.value)


def test_another_engine_can_be_composed():
    assert compose(["model_engine=megatron"]).actor_rollout_ref.actor.strategy == "megatron"


def test_neither_verl_nor_torch_is_imported():
    code = (
        "import sys; from rm_gallery.core.train.verl.check import explain; explain(['ray_init.num_cpus=1']); "
        "sys.exit(bool({'torch', 'verl', 'ray', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the command


def run(*arguments: str):
    return CliRunner().invoke(app, ["check", *arguments])


def test_the_command_says_what_to_do_and_fails():
    result = run("--", *GUIDE)
    assert result.exit_code == 1
    assert "29 overrides, 3 of them refused or without effect" in result.output
    assert "-> reward.custom_reward_function.path=./reward_fn.py" in result.output
    assert "problem: actor_rollout_ref.rollout.n is 1" in result.output
    assert "python3 -m verl.trainer.main_ppo \\\n  algorithm.adv_estimator=grpo \\\n" in result.output
    assert "\"trainer.logger=['console','wandb']\"" in result.output


def test_a_right_command_succeeds():
    result = run("--", *RIGHT)
    assert result.exit_code == 0
    assert "next: start it as it stands" in result.output


def test_the_report_as_json():
    result = run("--json", "--", *GUIDE)
    report = json.loads(result.output)
    assert result.exit_code == 1
    assert (report["ok"], len(report["findings"]), len(report["problems"])) == (False, 29, 4)
    assert set(report["findings"][0]) == {"key", "value", "status", "replacement", "reason"}
