"""The seconds-long check: verl's real configuration, dataset, reward manager, advantages and aggregation, no vLLM."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.errors import ConfigError

pytestmark = [pytest.mark.verl, pytest.mark.usefixtures("verl_cpu")]


@pytest.fixture(scope="module", params=["pointwise", "pairwise"])
def plan(request, plan_for):
    return plan_for(request.param, [])


@pytest.fixture(scope="module")
def tokenizer(plan):
    from verl.utils import hf_tokenizer

    return hf_tokenizer(plan.config.model.path)


@pytest.fixture(scope="module")
def dataset(plan, tokenizer):
    """Built by verl's own function, from the class that its configuration names."""
    from verl.trainer.ppo.utils import create_rl_dataset

    data = plan.resolved.data
    return create_rl_dataset(data.train_files, data, tokenizer, None, max_samples=data.train_max_samples)


def test_verl_accepts_the_configuration(plan):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    assert not need_critic(plan.resolved), "GRPO has no critic"
    assert need_reference_policy(plan.resolved)
    validate_config(plan.resolved, need_reference_policy(plan.resolved), need_critic(plan.resolved))


@pytest.mark.parametrize(("keep", "left"), [(2, [9, 10]), (None, [2, 8, 9, 10])])
def test_what_an_earlier_start_saved_is_not_kept_for_good(tmp_path, keep, left):
    """verl removes only what this process saved."""
    from rm_gallery.core.tasks.saved import CARD
    from rm_gallery.core.train.verl.callback import JudgeCheckpoint

    for step in (2, 8, 9, 10):
        (tmp_path / f"global_step_{step}" / "actor").mkdir(parents=True)
    (tmp_path / CARD).write_text("{}")
    trainer = SimpleNamespace(config=SimpleNamespace(trainer=SimpleNamespace(max_actor_ckpt_to_keep=keep)))
    JudgeCheckpoint().on_save(trainer, 10, str(tmp_path / "global_step_10"))
    kept = {int(actor.parent.name.split("_")[-1]) for actor in tmp_path.glob("global_step_*/actor")}
    assert sorted(kept) == left
    assert (tmp_path / "actor_latest" / CARD).is_file()


def test_a_key_that_verl_does_not_have_is_refused_before_anything_starts(plan):
    from rm_gallery.core.train.verl.launch import plan_verl

    wrong = plan.config.model_copy(update={"verl": {**plan.config.verl, "trainer.n_gpu": 1}})
    with pytest.raises(ConfigError, match=r"trainer\.n_gpus_per_node"):
        plan_verl(wrong, plan.run)


def test_a_dry_run_reads_the_rows_that_are_here(plan, dataset):
    from rm_gallery.core.train.verl.launch import check_rows_here

    assert any(note.startswith(f"{dataset.overlong} of ") for note in check_rows_here(plan))


def test_of_rows_that_only_the_cluster_has_it_says_so(plan, tmp_path):
    from rm_gallery.core.train.verl.launch import check_rows_here

    there = plan.config.data.model_copy(update={"train": tmp_path / "there.parquet"})
    plan = replace(plan, config=plan.config.model_copy(update={"data": there}))
    assert check_rows_here(plan) == [
        f"the rows were not read, for this is not on this machine: {tmp_path / 'there.parquet'}"
    ]


def test_the_loader_gives_our_order_of_prompts(plan, dataset, tokenizer):
    from torch.utils.data import SequentialSampler
    from verl.trainer.ppo.utils import create_rl_sampler

    from rm_gallery.core.models.weights import load_tokenizer
    from rm_gallery.core.train.rows import build_examples, drop_overlong
    from rm_gallery.core.train.sampling import prompt_order

    config = plan.config
    assert isinstance(create_rl_sampler(plan.resolved.data, dataset), SequentialSampler)
    # the local engine's own steps
    task, ours = config.build_task(), load_tokenizer(config.model.path)
    examples = build_examples(task, load_rows(config.data.train), limit=60, seed=config.train.seed)

    def count(messages):
        text = ours.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(ours(text, add_special_tokens=False)["input_ids"])

    kept, overlong = drop_overlong(examples, count, config.data.max_prompt_length)
    assert overlong == dataset.overlong > 0, "real prompts are longer than this model takes, and are counted"
    order = prompt_order(range(len(kept)), 4, epochs=1, max_steps=3, seed=config.train.seed)
    assert len(dataset) == len(order) == 12
    assert [dataset[i]["raw_prompt"] for i in range(12)] == [kept[i].messages for i in order]
    assert [dataset[i]["extra_info"]["unique_id"] for i in range(12)] == [
        kept[i].row["unique_id"] for i in order
    ]


def test_the_agent_loop_sees_the_prompt_that_was_counted(plan, dataset, tokenizer):
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    loop = create_continuous_token_builder(
        tokenizer,
        hf_model_type="llama",
        chat_template_kwargs=dict(plan.resolved.data.apply_chat_template_kwargs),
    )
    for i in range(len(dataset)):
        messages = dataset[i]["raw_prompt"]
        text = dataset._apply_chat_template(messages)
        assert list(loop.build_initial_tokens(messages)) == tokenizer.encode(text, add_special_tokens=False)


def test_verls_reward_manager_pays_our_reward(plan, dataset, tokenizer):
    import numpy as np
    import torch
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    manager = load_reward_manager(plan.resolved, tokenizer)
    item, task = dataset[0], plan.config.build_task()
    truth = task.check_truth(item["reward_model"]["ground_truth"])
    wrong = next(verdict for verdict in task.verdicts() if verdict != truth)

    async def pay(text: str) -> dict:
        prompt, answer = torch.tensor([[1, 2]]), torch.tensor([tokenizer.encode(text)])
        tensors = {"prompts": prompt, "responses": answer}
        tensors["attention_mask"] = torch.ones(1, 2 + answer.shape[1], dtype=torch.long)
        fields = {key: np.array([value], dtype=object) for key, value in item.items() if key != "raw_prompt"}
        return await manager.run_single(DataProto.from_dict(tensors=tensors, non_tensors=fields))

    async def pay_all() -> list[dict]:
        return [await pay(text) for text in (task.format(truth), task.format(wrong), "no verdict")]

    right, other, none = manager.loop.run_until_complete(pay_all())
    assert right["reward_score"] == task.reward(truth, truth) == 1.0
    assert other["reward_score"] == task.reward(wrong, truth) < 1.0
    assert none["reward_score"] == 0.0
    assert [result["reward_extra_info"]["parsed"] for result in (right, other, none)] == [1, 1, 0]
    keys = [set(result["reward_extra_info"]) for result in (right, other, none)]
    assert keys[0] == keys[1] == keys[2], "verl's aggregation needs the same keys of every row"


@pytest.mark.parametrize("normalised", [False, True])
def test_advantages_agree_with_the_local_engine(normalised):
    """TRL: (r - mean) / (std + 1e-4); verl: + 1e-6. Both take the unbiased standard deviation."""
    import numpy as np
    import torch
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rewards = torch.rand(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    centred = rewards - rewards.mean(1, keepdim=True)
    expected = centred / (rewards.std(1, keepdim=True) + 1e-4) if normalised else centred
    groups = np.repeat(np.arange(6), 8).astype(object)
    token_rewards = torch.zeros(48, 3, dtype=torch.float64)
    token_rewards[:, -1] = rewards.flatten()
    got, _ = compute_grpo_outcome_advantage(
        token_rewards, torch.ones(48, 3), groups, norm_adv_by_std_in_grpo=normalised
    )
    tolerance = {"rtol": 1e-3, "atol": 0} if normalised else {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(got[:, 0].double(), expected.flatten(), **tolerance)


def test_validation_figures_are_means_of_our_keys():
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    figures = process_validation_metrics(
        ["helpsteer2"] * 2, ["a", "b"], {"acc": [1.0, 0.0], "reward": [1.0, 0.5], "parsed": [1, 1]}
    )
    assert figures["helpsteer2"]["acc"]["mean@1"] == 0.5
    assert figures["helpsteer2"]["reward"]["mean@1"] == 0.75
