"""Encoding each token once changes nothing but the cost: the plain computation is the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models import scoring
from rm_gallery.core.models.forest import forest_attention
from rm_gallery.core.models.prompts import Prompts, distinct, lay_out
from rm_gallery.core.models.scoring import add_scoring, score_answers
from rm_gallery.core.models.weights import store_for_autocast

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["forest", "padded"])
def way(request, monkeypatch):
    """How the model reads: a forest, or padded, as where attention is not the plain one."""
    if request.param == "padded":
        monkeypatch.setattr(scoring, "fits_forest", lambda _: False)
    return request.param


def model(kind: str = "llama"):
    torch.manual_seed(0)
    if kind == "qwen":  # biases in attention, untied head
        built = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False))
    else:
        built = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True, attention_dropout=0.0))
    with torch.no_grad():  # the default initialisation is so small that errors would hide
        for parameter in built.parameters():
            parameter.normal_(0, 0.2)
    return built.eval()


def windowed(window: int = 4):
    """A model whose tokens see as many before them."""
    torch.manual_seed(0)
    built = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=window))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(0, 0.2)
    return built.eval()


def batch(groups: list[tuple[int, list[int]]], seed: int, stem: int = 0, words: int = VOCABULARY):
    """Left-padded prompts and right-padded completions; `groups` is (prompt length, completion lengths).

    Every other prompt begins with the same `stem` tokens, and the rest with others. Completions of few `words` begin
    alike.
    """
    generator = torch.Generator().manual_seed(seed)
    stems = torch.randint(1, VOCABULARY, (2, stem), generator=generator)
    longest = max(length for length, _ in groups)
    keep = max(n for _, sizes in groups for n in sizes)
    ids, mask, completions, completion_mask = [], [], [], []
    for number, (length, sizes) in enumerate(groups):
        prompt = torch.randint(1, VOCABULARY, (length,), generator=generator)
        prompt[:stem] = stems[number % 2, :length]
        for size in sizes:
            # padding is an arbitrary real token: only the mask may tell it
            ids.append(torch.cat([torch.full((longest - length,), 7), prompt]))
            mask.append(torch.cat([torch.zeros(longest - length), torch.ones(length)]).long())
            completion = torch.randint(1, words, (size,), generator=generator)
            completions.append(torch.cat([completion, torch.full((keep - size,), 9)]))
            completion_mask.append(torch.cat([torch.ones(size), torch.zeros(keep - size)]).long())
    return torch.stack(ids), torch.stack(mask), torch.stack(completions), torch.stack(completion_mask)


def plain(net, ids, mask, completions, completion_mask, temperature=1.0):
    """Every row on its own, without padding and without a cache."""
    rows = []
    for prompt, real, completion, kept in zip(ids, mask, completions, completion_mask, strict=True):
        prompt, completion = prompt[real.bool()], completion[kept.bool()]
        logits = net(torch.cat([prompt, completion]).unsqueeze(0), use_cache=False).logits[0] / temperature
        scores = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(-1, completion.unsqueeze(-1)).squeeze(-1)
        rows.append(torch.nn.functional.pad(scores, (0, len(kept) - len(completion))))
    return torch.stack(rows)


def shared(net, ids, mask, completions, completion_mask, temperature=1.0):
    return score_answers(net, ids, mask, completions, completion_mask, temperature)


def gradients(net, loss):
    net.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


group = st.tuples(st.integers(1, 9), st.lists(st.integers(1, 6), min_size=1, max_size=4))


# the fixture sets what holds for all examples
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(group, min_size=1, max_size=6),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["llama", "qwen"]),
    temperature=st.sampled_from([1.0, 0.7]),
    stem=st.integers(0, 20),  # worth sharing in a forest from 16
    words=st.sampled_from([3, VOCABULARY]),
    checkpoints=st.booleans(),
)
def test_log_probabilities_and_gradients_equal_the_plain_computation(
    groups, seed, kind, temperature, stem, words, checkpoints, way
):
    net = model(kind)
    data = batch([(length + stem, sizes) for length, sizes in groups], seed, stem, words)
    weights = torch.randn(data[2].shape, generator=torch.Generator().manual_seed(seed)) * data[3]
    expected = plain(net, *data, temperature)
    expected_gradients = gradients(net, (expected * weights).sum())
    if checkpoints and way == "forest":
        net.train().gradient_checkpointing_enable({"use_reentrant": False})
    got = shared(net, *data, temperature)
    torch.testing.assert_close(got.log_probs, expected, atol=2e-5, rtol=1e-5)
    with forest_attention(net):
        found = gradients(net, (got.log_probs * weights).sum())
    for name, gradient in found.items():
        scale = max(1.0, expected_gradients[name].abs().max().item())
        torch.testing.assert_close(gradient / scale, expected_gradients[name] / scale, atol=2e-5, rtol=0)


def test_a_batch_of_a_forest_has_no_padding_and_no_token_twice():
    """Two questions of one rubric, eight answers each that begin alike: what the model computes is the distinct."""
    read, rubric = [], list(range(1, 31))
    prompts = [[*rubric, 40], [*rubric, 41, 42, 43]]
    answers = [[50, 51, digit, 52] for digit in (1, 2, 1, 3, 1, 1, 2, 2)]
    net = model()
    net.model.embed_tokens.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    ids = torch.tensor([[0] * (33 - len(p)) + p for p in prompts for _ in answers])
    completions = torch.tensor(answers * 2)
    shared(net, ids, (ids > 0).long(), completions, torch.ones_like(completions))
    assert read == [len(rubric) + 1 + 3 + 2 * (2 + 3)], (
        "of an answer its last token is predicted, and not read"
    )


@pytest.mark.parametrize("kind", ["llama", "qwen"])
def test_a_model_stored_for_autocast_says_the_same_bit_by_bit(kind, way, tmp_path):
    """Both of tied and of untied heads, read from a file as a reference is."""
    model(kind).save_pretrained(tmp_path)
    net = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    data = batch([(20, [2, 3, 1]), (18, [4, 2])], seed=1, stem=17)

    def scores():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return shared(net, *data).log_probs

    before, memory = scores(), net.get_memory_footprint()
    store_for_autocast(net, torch.bfloat16)
    assert torch.equal(scores(), before)
    assert net.get_memory_footprint() < 0.65 * memory
    assert net.get_input_embeddings().weight.dtype == torch.float32, "or residuals would be rounded"
    assert (net.lm_head.weight is net.get_input_embeddings().weight) == (kind == "llama"), "tied as before"


def test_rows_of_a_group_need_not_be_adjacent(way):
    net = model()
    data = batch([(5, [2, 3, 1]), (3, [4, 2])], seed=1)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = tuple(part[order] for part in data)
    straight = shared(net, *data).log_probs
    torch.testing.assert_close(shared(net, *shuffled).log_probs, straight[order], atol=1e-5, rtol=1e-5)


def test_equal_prompts_are_found_whatever_their_padding_holds():
    ids = torch.tensor([[7, 7, 3, 4], [5, 6, 3, 4], [1, 2, 3, 4]])
    mask = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
    prompts, rows = distinct(ids, mask)
    assert prompts == [(2, 3, 4), (3, 4)]
    assert rows == [1, 1, 0]


def tokens_of(prompts: Prompts) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(prompts.ids, prompts.mask, strict=True)]


@given(
    prompts=st.lists(
        st.lists(st.integers(1, 3), min_size=1, max_size=12), min_size=1, max_size=8, unique_by=tuple
    )
)
def test_a_layout_holds_the_prompts_and_equal_stems_within_a_group(prompts):
    laid = lay_out([tuple(prompt) for prompt in prompts], torch.device("cpu"))
    assert tokens_of(laid) == prompts
    firsts = laid.firsts[laid.groups]
    assert torch.equal(laid.ids[firsts, : laid.stem], laid.ids[:, : laid.stem])
    assert torch.equal(laid.mask[firsts, : laid.stem], laid.mask[:, : laid.stem])
    assert tokens_of(laid.without_last()) == [p[:-1] for p in prompts], "padding stands before, not behind"


def test_the_responses_to_one_question_share_it():
    questions = [list(range(10 * q, 10 * q + 9)) for q in (1, 2)]
    prompts = [(1, 2, *question, *range(100 + r, 104 + r)) for question in questions for r in range(3)]
    laid = lay_out(prompts, torch.device("cpu"))
    assert laid.stem == 11, "instruction and question, not only the instruction that all of them have"
    assert laid.groups.tolist() == [0, 0, 0, 1, 1, 1]


def test_entropy_is_that_of_the_whole_vocabulary(way):
    net = model()
    data = batch([(4, [1])], seed=3)
    logits = net(data[0], use_cache=False).logits[0, -1].log_softmax(-1)
    expected = -(logits.exp() * logits).sum()
    torch.testing.assert_close(shared(net, *data).entropy[0, 0], expected, atol=1e-5, rtol=1e-5)


def test_many_positions_are_projected_in_chunks_with_the_same_gradient(monkeypatch, way):
    net = model()
    data = batch([(6, [5, 5, 4, 3])], seed=4)
    whole = gradients(net, shared(net, *data).log_probs.sum())
    monkeypatch.setattr("rm_gallery.core.models.scoring._TOKENS_PER_CHUNK", 3)
    for name, gradient in gradients(net, shared(net, *data).log_probs.sum()).items():
        torch.testing.assert_close(gradient, whole[name], atol=1e-5, rtol=1e-5)


def test_forward_without_the_argument_is_the_models_own():
    net = model()
    ids = torch.randint(1, VOCABULARY, (2, 5))
    before = net(ids).logits
    add_scoring(net)
    torch.testing.assert_close(net(ids).logits, before, atol=0, rtol=0)


def test_a_model_that_transforms_its_logits_is_refused():
    net = model()
    net.config.final_logit_softcapping = 30.0
    with pytest.raises(ConfigError, match="shared_prefix to false"):
        add_scoring(net)


def test_gradients_are_the_same_bits_with_several_threads(way):
    """The rows of a group are added up in the prompt's gradient: in one order, or a killed run would not resume to
    the metrics of an unbroken one."""
    torch.set_num_threads(2)  # the fixture puts it back
    net = model()
    data = batch([(700, [4] * 32), (500, [4] * 32)], seed=7)
    first = gradients(net, shared(net, *data).log_probs.sum())
    for _ in range(5):
        again = gradients(net, shared(net, *data).log_probs.sum())
        assert all(torch.equal(gradient, again[name]) for name, gradient in first.items())


def test_within_a_window_a_common_beginning_is_read_once():
    net, read = windowed(64), []
    net.model.embed_tokens.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    data = batch([(20, [3, 2]), (27, [4])], seed=1)
    data[0][:, -20:-2] = 5  # what all begin with; the longer prompt has more before it
    for length, rows in ((20, slice(0, 2)), (27, slice(2, 3))):
        data[0][rows, -length:-2] = torch.arange(length - 2) + 10
    torch.testing.assert_close(shared(net, *data).log_probs, plain(net, *data), atol=2e-5, rtol=1e-5)
    assert read[0] == 18, "the stem, before the two rests"


def test_behind_a_common_beginning_a_window_sees_as_much():
    """Prompts of unequal length have padding behind what they share, which a window would count."""
    net = windowed()
    data = batch([(20, [3, 2]), (27, [4]), (23, [2, 5]), (30, [3])], seed=1, stem=18)
    torch.testing.assert_close(shared(net, *data).log_probs, plain(net, *data), atol=2e-5, rtol=1e-5)
