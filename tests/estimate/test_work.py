"""Work: against multiply-adds that torch counts, and the properties that any count of it has."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.estimate import SIZES, Transformer, given_lengths, known_size, read_model
from rm_gallery.core.estimate.counts import forward_operations, seen
from rm_gallery.core.estimate.memory import memory_of
from rm_gallery.core.estimate.model import from_config
from rm_gallery.core.estimate.work import evaluations, step_work, steps_of, trained_weights
from tests.estimate.runs import SMALL, config

lengths = st.integers(2, 600)
methods = st.sampled_from(["grpo", "exact", "sft", "bradley_terry", "regression"])


def total(work) -> float:
    return sum(part.operations for part in work)


def reads(work) -> float:
    return sum(part.read for part in work)


# -- properties


@given(methods, lengths, lengths, st.integers(1, 30))
def test_longer_prompts_are_never_less_work(method, one, other, answer):
    short, long = sorted((one, other))
    short_work, long_work = (
        step_work(config(method=method), SMALL, given_lengths(8, prompt, answer, tree=6))
        for prompt in (short, long)
    )
    assert total(short_work) <= total(long_work)
    assert reads(short_work) <= reads(long_work)


@given(lengths, st.integers(1, 40), st.integers(1, 40), st.integers(2, 16))
def test_longer_answers_and_larger_groups_are_never_less_work(prompt, one, other, n):
    short, long = sorted((one, other))
    settings = config(rollout__n=n)
    assert total(step_work(settings, SMALL, given_lengths(8, prompt, short))) <= total(
        step_work(settings, SMALL, given_lengths(8, prompt, long))
    )
    more = config(rollout__n=n + 1)
    assert total(step_work(settings, SMALL, given_lengths(8, prompt, long))) < total(
        step_work(more, SMALL, given_lengths(8, prompt, long))
    )


@given(lengths, st.integers(1, 40), st.integers(2, 16))
def test_sharing_the_prompt_never_costs_more(prompt, answer, n):
    shared, plain = (
        step_work(config(model__shared_prefix=shares, rollout__n=n), SMALL, given_lengths(8, prompt, answer))
        for shares in (True, False)
    )
    for part, other in zip(shared, plain, strict=True):
        assert part.phase == other.phase
        assert part.operations <= other.operations
        assert part.read <= other.read


@given(methods, st.integers(1, 5), lengths)
def test_work_is_linear_in_the_prompts_of_a_step(method, times, prompt):
    one, more = (
        step_work(config(method=method, train__batch_size=2 * k), SMALL, given_lengths(8, prompt, 8, tree=6))
        for k in (1, times)
    )
    assert total(more) == pytest.approx(times * total(one))


@given(methods, st.sampled_from([1, 2, 4]), lengths)
def test_devices_share_the_operations_and_not_the_optimizer(method, gpus, prompt):
    settings, given_ = config(method=method), given_lengths(8, prompt, 8, tree=6)
    alone, shared = step_work(settings, SMALL, given_), step_work(settings, SMALL, given_, gpus)
    assert gpus * total(shared) == pytest.approx(total(alone))
    assert shared[-1] == alone[-1]


def test_adapters_leave_out_the_gradients_of_the_weights():
    given_ = given_lengths(8, 100, 8)
    whole = {part.phase: part for part in step_work(config(), SMALL, given_)}
    lora = {part.phase: part for part in step_work(config(model__lora={}), SMALL, given_)}
    assert lora["update"].operations == pytest.approx(2 / 3 * whole["update"].operations)
    assert lora["optimizer"].read < whole["optimizer"].read


def test_a_second_update_of_a_step_needs_the_old_log_probabilities():
    given_ = given_lengths(8, 100, 8)
    one, two = (
        {part.phase: part for part in step_work(config(train__mini_batch_size=size), SMALL, given_)}
        for size in (4, 2)
    )
    assert two["log_probs"].operations == 2 * one["log_probs"].operations
    assert two["optimizer"].read == 2 * one["optimizer"].read


@pytest.mark.parametrize(
    ("changes", "rows", "steps", "held_out"),
    [
        ({}, 40, 10, 2),  # the start and the tenth, which is the last
        ({"train__epochs": 2}, 43, 20, 3),
        ({"train__max_steps": 7}, 40, 7, 2),
        ({"train__max_steps": 11}, 40, 11, 3),
        ({"train__eval_every": None}, 40, 10, 2),
    ],
)
def test_steps_and_evaluations(changes, rows, steps, held_out):
    assert steps_of(config(**changes), rows) == steps
    assert evaluations(config(**changes), steps) == held_out


@given(methods, lengths)
def test_memory_grows_with_the_micro_batch_and_adapters_take_less(method, prompt):
    given_ = given_lengths(8, prompt, 8, tree=6)
    small, large = (
        memory_of(config(method=method, train__micro_batch_size=size), SMALL, given_).peak for size in (1, 4)
    )
    assert small.low <= large.low
    assert small.low <= small.middle <= small.high
    lora = memory_of(config(method=method, model__lora={"rank": 1}), SMALL, given_)
    assert lora.peak.low < memory_of(config(method=method), SMALL, given_).peak.low


@pytest.mark.parametrize("tied", [True, False])
def test_a_reference_keeps_only_its_embeddings_in_float32(tied):
    model = dataclasses.replace(SMALL, tied=tied)
    parts = memory_of(config(model__dtype="bfloat16"), model, given_lengths(8, 100, 8)).parts
    embeddings = model.vocabulary * model.hidden
    assert parts["reference"] == 2 * (model.parameters - embeddings) + 4 * embeddings
    whole = memory_of(config(model__dtype="float32"), model, given_lengths(8, 100, 8)).parts
    assert whole["reference"] == 4 * model.parameters


# -- against torch


def counted(run) -> int:
    """Operations that torch counts."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.fixture
def eager(tiny_model, one_thread):
    """The model with attention as two matrix products, which compute also what the mask hides."""
    from rm_gallery.core.models.weights import load_model

    return load_model(tiny_model, attention="eager").train()


def test_a_forward_and_a_backward_pass_are_what_torch_counts(eager, tiny_model):
    import torch

    size = read_model(str(tiny_model))
    ids = torch.randint(0, size.vocabulary, (1, 50))
    rectangle = dataclasses.replace(size.without_head, causal=False)
    forward = forward_operations(rectangle, 50, 1, 1)
    body = eager.base_model
    assert counted(lambda: body(input_ids=ids)) == pytest.approx(forward, rel=1e-3)
    both = counted(lambda: body(input_ids=ids).last_hidden_state.sum().backward())
    assert both == pytest.approx(3 * forward, rel=1e-3)


def test_a_group_that_shares_its_prompt_is_what_torch_counts(eager, tiny_model):
    import torch

    from rm_gallery.core.models.scoring import add_scoring

    prompt, group, answer = 40, 3, 6
    size = read_model(str(tiny_model))
    add_scoring(eager)
    ids = torch.randint(0, size.vocabulary, (1, prompt)).repeat(group, 1)
    answers = torch.arange(group * answer).view(group, answer)  # that have nothing in common

    def step() -> None:
        scores = eager(
            prompt_ids=ids,
            prompt_mask=torch.ones_like(ids),
            answer_ids=answers,
            answer_mask=torch.ones_like(answers),
            temperature=1.0,
        )
        scores.log_probs.sum().backward()

    shape, nodes = size.shape, group * (answer - 1)
    ours = forward_operations(shape, prompt, group, answer)
    # attention computes whole blocks, and in the backward pass once more; the prompt's end is projected for each sample
    pair = 4 * shape.attention_width * shape.layers
    blocks = pair * (prompt**2 + nodes * (prompt + nodes))
    rest = ours - pair * seen(prompt, group, answer) + 2 * shape.head_weights * (group - 1)
    assert counted(step) == pytest.approx(3 * rest + 4 * blocks, rel=2e-3)
    [update] = [
        w
        for w in step_work(
            config(train__batch_size=1, rollout__n=group), size, given_lengths(1, prompt, answer)
        )
        if w.phase == "update"
    ]
    assert update.operations == 3 * ours


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3", "Mistral", "Bert", "GPT2", "Gemma"])
def test_a_config_says_how_many_weights_there_are(name):
    import torch
    import transformers

    options = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 100,
    }
    if name not in ("Bert", "GPT2"):
        options |= {"num_key_value_heads": 2, "head_dim": 8}
    if name == "GPT2":
        options = {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 100}
    settings = getattr(transformers, f"{name}Config")(**options)
    with torch.device("meta"):
        body = getattr(transformers, f"{name}Model")(settings)
    matrices = {
        key: p.numel()
        for key, p in body.named_parameters()
        if p.dim() > 1 and not any(x in key for x in ("position", "token_type", "pooler", "wpe"))
    }
    size = from_config(settings.to_dict(), name)
    assert size.shape.layer_weights + size.shape.head_weights == sum(matrices.values())
    assert size.causal == (name != "Bert")


@pytest.mark.parametrize(
    ("name", "billions", "in_layers"),  # of the models' cards
    [
        ("0.5B", 0.49, 0.36),
        ("1.5B", 1.54, 1.31),
        ("3B", 3.09, 2.77),
        ("7B", 7.61, 6.53),
        ("14B", 14.7, 13.1),
        ("32B", 32.5, 31.0),
        ("72B", 72.7, 70.0),
    ],
)
def test_known_sizes_have_the_weights_that_their_cards_say(name, billions, in_layers):
    size = known_size(name)
    assert size.parameters / 1e9 == pytest.approx(billions, rel=0.015)
    assert size.shape.layer_weights / 1e9 == pytest.approx(in_layers, rel=0.015)


def test_adapters_have_rank_times_the_ends_of_each_matrix():
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    size = Transformer("t", 32, 2, 4, 2, 8, 48, 100, tied=True)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            vocab_size=100,
        )
    )
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    learned = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained_weights(config(model__lora={"rank": 4}), size) == learned


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_experts": 8}, "mixture of experts"),
        ({"hidden_size": 8}, "num_hidden_layers|num_attention_heads"),
    ],
)
def test_a_config_that_does_not_say_its_sizes_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        from_config(values, "somebody's model")


def test_every_size_has_its_name():
    assert all(known_size(name.lower()) is SIZES[name] for name in SIZES)
    with pytest.raises(ConfigError, match="Did you mean '7B'"):
        known_size("7")
