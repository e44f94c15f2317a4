"""verl's loss with the keys that we set is the documented one, as is the local engine's."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.usefixtures("verl_cpu")]


def test_the_loss_is_the_documented_one(plan_for):
    """The same formula as the local engine is held to (tests/train/test_local_grpo.py)."""
    import torch
    from verl.trainer.ppo.core_algos import agg_loss, compute_policy_loss_vanilla, kl_penalty
    from verl.utils.config import omega_conf_to_dataclass

    from tests.grpo_loss import grpo_loss

    plan = plan_for("pointwise", ["loss.clip=0.2", "loss.kl_coef=0.3"])
    actor = omega_conf_to_dataclass(plan.resolved.actor_rollout_ref.actor)
    assert (actor.policy_loss.loss_mode, actor.use_kl_loss, actor.entropy_coeff) == ("vanilla", True, 0)

    generator = torch.Generator().manual_seed(0)
    shape = (16, 8)
    old = -3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    now = old + 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    reference = old + 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    now[0, 0], old[0, 0] = (
        -0.1,
        -3.1,
    )  # a ratio of 20 with a negative advantage: verl's own second clip would bite
    advantages = torch.randn(16, generator=generator, dtype=torch.float64)
    advantages[0] = -1.0
    mask = torch.arange(8)[None] < torch.randint(1, 9, (16, 1), generator=generator)

    policy, _ = compute_policy_loss_vanilla(
        old_log_prob=old,
        log_prob=now,
        advantages=advantages[:, None].expand(shape),
        response_mask=mask,
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
    )
    kl = agg_loss(
        loss_mat=kl_penalty(now, reference, actor.kl_loss_type),
        loss_mask=mask,
        loss_agg_mode=actor.loss_agg_mode,
    )
    expected = grpo_loss(now, old, reference, advantages, mask, clip=0.2, kl_coef=0.3)
    torch.testing.assert_close(policy + actor.kl_loss_coef * kl, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["pointwise", "pairwise"])
def test_the_same_texts_have_the_same_verdicts_and_rewards_on_both_engines(plan_for, kind):
    """What verl's own reward manager pays is what the local engine's reward function does, malformed texts included."""
    import numpy as np
    import torch
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager
    from verl.utils import hf_tokenizer

    from rm_gallery.core.data.rows import load_rows
    from rm_gallery.core.train.rows import build_examples

    plan = plan_for(kind, [])
    tokenizer = hf_tokenizer(plan.config.model.path)
    manager = load_reward_manager(plan.resolved, tokenizer)
    task = plan.config.build_task()
    texts = [task.format(verdict) for verdict in task.verdicts()]
    texts += [f"<think>{texts[0]}</think>\n{texts[1]}", texts[0] * 2, f"<think>{texts[0]}", texts[0].upper()]
    texts += [
        "",
        "4",
        "<score>5</score>",
        "<score>3/4</score>",
        "<score> 3.0 </score>",
        "<preference>C</preference>",
    ]
    rows = load_rows(plan.config.data.train)
    examples = build_examples(task, rows, limit=3, seed=0)

    def item(example, text):
        answer = torch.tensor([tokenizer.encode(text, add_special_tokens=False) or [tokenizer.eos_token_id]])
        tensors = {"prompts": torch.tensor([[1, 2]]), "responses": answer}
        tensors["attention_mask"] = torch.ones(1, 2 + answer.shape[1], dtype=torch.long)
        fields = {
            "data_source": str(example.row.get("data_source")),
            "reward_model": {"ground_truth": example.truth},
            "extra_info": {"index": 0},
        }
        arrays = {key: np.array([value], dtype=object) for key, value in fields.items()}
        return DataProto.from_dict(tensors=tensors, non_tensors=arrays)

    async def pay():
        return [await manager.run_single(item(example, text)) for example in examples for text in texts]

    paid = manager.loop.run_until_complete(pay())
    ours = [
        task.compute_score(str(example.row.get("data_source")), text, example.truth)
        for example in examples
        for text in texts
    ]
    assert [result["reward_score"] for result in paid] == [result["score"] for result in ours]
    for theirs, mine in zip(paid, ours, strict=True):
        assert {key: theirs["reward_extra_info"][key] for key in mine} == mine
    assert {result["parsed"] for result in ours} == {0, 1}
