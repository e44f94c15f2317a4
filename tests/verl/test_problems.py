"""Each thing that would go wrong with a configuration of verl, and that a right one is left alone."""

from __future__ import annotations

import copy
import importlib.util
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs hydra, which comes with verl")
if importlib.util.find_spec("verl") is None:
    pytest.skip("needs verl 0.9.1: pip install 'rm-gallery[verl]'", allow_module_level=True)

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rm_gallery.core.train.verl import sizes
from rm_gallery.core.train.verl.check import compose, explain, problems
from rm_gallery.core.train.verl.hydra_words import key_of
from rm_gallery.core.train.verl.settings import Settings
from tests.verl.guide import ACTOR, REF, ROLLOUT, right

RIGHT = right()


@pytest.fixture(scope="module")
def found():
    """The problems of the right command with overrides after it; `~key` leaves one out. Composes only once."""
    right, default = compose(RIGHT), compose([])

    def of(*changes: str, **options) -> list[str]:
        config, words = copy.deepcopy(right), {key_of(word): word for word in RIGHT}
        for change in changes:
            key = key_of(change)
            if change.startswith("~"):
                del words[key]
                OmegaConf.update(config, key, OmegaConf.select(default, key))
            else:
                words[key] = change
                OmegaConf.update(config, key, OverridesParser.create().parse_override(change).value())
        return problems(config, list(words.values()), **options)

    return of


@pytest.mark.parametrize(
    ("changes", "expected", "why"),
    [
        (["custom_reward_function.path=x.py"], "set reward.custom_reward_function.path", "of 0.4"),
        (
            [f"{ACTOR}.use_torch_compile=false"],
            "has no effect.*fsdp_config.use_torch_compile",
            "the engine has its own",
        ),
        ([f"{ROLLOUT}.do_sample=false"], "has no effect.*leave it out", "nothing takes its place"),
        ([f"{ACTOR}.ppo_micro_batch_size=32"], "stops verl.*_per_gpu", "listed, and the workers stop at it"),
        (
            ["data.train_batch_size=many"],
            "data.train_batch_size is 'many'.*whole number",
            "verl has no types here",
        ),
        ([f"{ROLLOUT}.n=0"], "whole number above 0", "no answers"),
        (
            ["data.max_prompt_length=${data.nothing}"],
            "refers to something that is not there",
            "resolved at the start",
        ),
        (
            ["~actor_rollout_ref.model.path"],
            "actor_rollout_ref.model.path is not given",
            "verl has an example there",
        ),
        (["~data.train_files"], "data.train_files is not given", "the same"),
        ([f"~{ROLLOUT}.name"], r"rollout.name is not set.*vllm, sglang, trtllm", "mandatory"),
        ([f"{ROLLOUT}.name=hf"], "'hf', which verl 0.9.1 does not know.*set it to vllm", "of 0.4"),
        ([f"{ROLLOUT}.name=vlm"], "rollout.name is 'vlm': set it to one of vllm", "misspelt"),
        ([f"{ROLLOUT}.mode=sync"], "leave the key out", "of 0.4"),
        (["algorithm.adv_estimator=grop"], "adv_estimator is 'grop'", "misspelt"),
        (["reward.reward_manager.name=batch"], "naive, dapo, gdpo", "of 0.4"),
        (
            [f"{ACTOR}.kl_loss_type=full"],
            "kl_loss_type is 'full'",
            "listed in a comment, and not implemented",
        ),
        (["trainer.resume_mode=yes"], "auto, disable, resume_path", "another word stops it after loading"),
        (["trainer.logger=[console,wandbb]"], "trainer.logger names 'wandbb'", "misspelt"),
        (["trainer.logger=wandbb"], "trainer.logger names 'wandbb'", "one logger without a list"),
        (["trainer.use_v1=false"], "deprecated trainer", "this check knows the new one"),
        (
            ["~algorithm.adv_estimator"],
            "gae .verl's default.*adv_estimator=grpo",
            "a critic that nobody asked for",
        ),
        (["algorithm.adv_estimator=gae"], "gae .given.*critic's model", "its model is of an example"),
        ([f"{ROLLOUT}.n=1"], "rollout.n is 1.*4 or more", "a group of one has no advantage"),
        ([f"{ROLLOUT}.temperature=0"], "nothing is learned", "all answers are the same"),
        (
            ["data.train_batch_size=16"],
            "is over data.train_batch_size",
            "the mini-batch is a part of the batch",
        ),
        (["data.train_batch_size=100"], "not a multiple.*96 or 120", "filled with empty rows"),
        (
            ["trainer.n_gpus_per_node=5", f"{ROLLOUT}.tensor_model_parallel_size=5"],
            "shared evenly by 5 GPUs",
            "96 x 4",
        ),
        (
            ["trainer.nnodes=4", f"{ACTOR}.ppo_mini_batch_size=12"],
            "by 32 data-parallel GPUs.*multiple of 8",
            "12 x 4 answers",
        ),
        (
            [f"~{ACTOR}.ppo_micro_batch_size_per_gpu"],
            "ppo_micro_batch_size_per_gpu is not set.*to 4",
            "12 answers each",
        ),
        (
            [f"~{REF}.log_prob_micro_batch_size_per_gpu"],
            "ref.log_prob.*is not set",
            "the KL loss asks the reference",
        ),
        ([f"{ACTOR}.ppo_micro_batch_size_per_gpu=5"], "does not divide the 12 answers", "96 / 8"),
        ([f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=5"], "does not divide the 48 answers", "384 / 8"),
        ([f"{ROLLOUT}.log_prob_use_dynamic_bsz=true"], "differ", "an assertion in the workers"),
        (
            [f"{ACTOR}.use_dynamic_bsz=true", f"{ACTOR}.ppo_max_token_len_per_gpu=4096"],
            r"\(4096\) is below a sequence of 6144 tokens",
            "one sequence has to fit",
        ),
        ([f"{ROLLOUT}.tensor_model_parallel_size=16"], "does not divide the 8 GPUs", "more than there are"),
        (
            [f"{ROLLOUT}.tensor_model_parallel_size=3"],
            "does not divide the 8 GPUs",
            "some would be left over",
        ),
        ([f"{ROLLOUT}.data_parallel_size=2"], r"\(8\) x data_parallel_size \(2\) does not", "both together"),
        (
            ["trainer.nnodes=3", f"{ROLLOUT}.tensor_model_parallel_size=6", "data.train_batch_size=48"],
            "does not fit on nodes of 8 GPUs",
            "6 divides 24, and one model would lie on two nodes",
        ),
        ([f"{ROLLOUT}.pipeline_model_parallel_size=2"], "which verl does not do", "not implemented"),
        (
            [f"{ACTOR}.ulysses_sequence_parallel_size=3"],
            r"\(3\) does not divide the 8 GPUs",
            "parts of a sequence",
        ),
        (
            [f"{ACTOR}.ulysses_sequence_parallel_size=2", "actor_rollout_ref.model.use_remove_padding=false"],
            "takes sequences without padding",
            "as verl's own check",
        ),
        (
            [f"{ROLLOUT}.max_model_len=4096"],
            r"6144 tokens is over .*max_model_len \(4096\)",
            "answers are cut short",
        ),
        (
            [f"{ACTOR}.clip_ratio=0.1"],
            "clip_ratio_low and .*go before it: set both to 0.1",
            "they are 0.2 each",
        ),
        (
            [f"{ACTOR}.clip_ratio=0.1", f"{ACTOR}.clip_ratio_low=0.1"],
            "clip_ratio_high .*goes before it",
            "one side",
        ),
        (["data.custom_cls.name=null"], "data.custom_cls.name is not", "verl takes the attribute None"),
        (["reward.custom_reward_function.name=null"], "custom_reward_function.name is not", "the same"),
    ],
)
def test_each_problem_is_found(found, changes: list[str], expected: str, why: str):
    assert any(re.search(expected, sentence) for sentence in found(*changes)), why


def test_the_context_of_the_model(found):
    assert found(context=8192) == []
    assert "over the model's context of 4096 tokens" in found(context=4096)[0]
    sentences = found(f"{ROLLOUT}.max_model_len=16384", context=8192)
    assert sentences == [
        f"{ROLLOUT}.max_model_len (16384) is over the model's context of 8192 tokens: set it to 8192 or less"
    ]


def test_what_serves_is_not_complained_about(found):
    assert found() == []
    assert found(f"{ACTOR}.grad_clip=1.0", f"{ACTOR}.optim.clip_grad=1.0") == [], (
        "both are given, and say the same"
    )
    sides = (f"{ACTOR}.clip_ratio_low=0.2", f"{ACTOR}.clip_ratio_high=0.28")
    assert found(f"{ACTOR}.clip_ratio=0.1", *sides) == [], "what is meant is said"
    two_nodes = ("trainer.nnodes=2", f"{ACTOR}.ppo_micro_batch_size_per_gpu=2")
    assert found(*two_nodes, f"{ROLLOUT}.tensor_model_parallel_size=16") == [], "one model over both"
    dynamic = [f"~{word.partition('=')[0]}" for word in RIGHT if "micro_batch" in word]
    assert found(*dynamic, f"{ACTOR}.use_dynamic_bsz=true") == [], "a budget of tokens takes no sizes"
    assert found(f"~{REF}.log_prob_micro_batch_size_per_gpu", f"{ACTOR}.use_kl_loss=false") == [], (
        "no reference"
    )
    assert (
        found("critic.model.path=x", "algorithm.adv_estimator=gae", "critic.ppo_micro_batch_size_per_gpu=4")
        == []
    )


def test_a_value_of_any_kind_is_answered_with_a_sentence():
    """verl's configuration has no types: a number stands where a list was meant, or a section."""
    default = compose([])
    for key in (
        "trainer.logger",
        "data.train_files",
        "data.custom_cls.path",
        f"{ROLLOUT}.name",
        f"{ROLLOUT}.n",
    ):
        for value in (1, None, [1], {"a": 1}, ""):
            config = copy.deepcopy(default)
            OmegaConf.update(config, key, value, merge=False)
            assert all(isinstance(said, str) for said in problems(config, [], context=1, check_files=True))


def test_all_problems_are_found_at_once():
    assert len(explain(["trainer.logger=[wandbb]"]).problems) > 5


def test_no_word_about_batches_means_that_verls_assertions_hold():
    draw = random.Random(0)
    quiet = 0
    for _ in range(800):
        batch, mini, n = draw.randint(1, 64), draw.randint(1, 32), draw.randint(1, 8)
        gpus, micro, score = draw.choice((1, 2, 4, 6, 8)), draw.randint(1, 8), draw.randint(1, 8)
        config = OmegaConf.create(
            {
                "data": {"train_batch_size": batch},
                "trainer": {"n_gpus_per_node": gpus, "nnodes": 1},
                "actor_rollout_ref": {
                    "actor": {"ppo_mini_batch_size": mini, "ppo_micro_batch_size_per_gpu": micro},
                    "rollout": {"n": n, "log_prob_micro_batch_size_per_gpu": score},
                },
            }
        )
        settings = Settings(config, [])
        said = [*sizes.batches(settings), *sizes.micro_batches(settings)]
        # `validate_config`, `train_mini_batch` and `prepare_micro_batches` of verl
        holds = mini <= batch and batch * n % gpus == 0 and mini * n % gpus == 0 and batch % mini == 0
        holds = holds and mini * n // gpus % micro == 0 and batch * n // gpus % score == 0
        assert (not said) == holds, (batch, mini, n, gpus, micro, score, said)
        quiet += holds
    assert quiet > 10


# -- files


def test_files_are_looked_for_only_when_asked(found, tmp_path: Path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    assert found() == []
    missing = found(check_files=True)
    assert [sentence.partition(" names ")[0] for sentence in missing] == [
        "data.custom_cls.path",
        "reward.custom_reward_function.path",
        "data.train_files",
        "data.val_files",
    ]
    (tmp_path / "dataset.py").write_text("class Other: ...\n")
    (tmp_path / "reward_fn.py").write_text("from rewards import compute_score\n")
    (tmp_path / "data").mkdir()
    for name, rows in (("train", 10), ("test", 1)):
        pq.write_table(pa.table({"x": list(range(rows))}), f"data/helpsteer2_pointwise_{name}.parquet")
    assert found(check_files=True) == [
        "data.custom_cls.name is 'HelpfulnessPointwiseTrainDataset', and dataset.py defines no such class: give the "
        "name of one",
        "data.train_batch_size (96) is over the 10 rows of data.train_files, so that there is not one step: set it to "
        "10 or less",
    ]


def test_modules_and_remote_files_are_left_to_verl(found):
    changes = [
        "data.custom_cls.path=pkg://package.module",
        "reward.custom_reward_function.path=pkg://package.module",
        "data.train_files=hdfs://store/train.parquet",
        "data.val_files=[hdfs://store/val.parquet]",
    ]
    assert found(*changes, check_files=True) == []
