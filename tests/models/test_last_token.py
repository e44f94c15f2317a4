"""Scores at the last token, of texts that begin alike: transformers' padded batch is the reference."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rm_gallery.core.models import last_token
from rm_gallery.core.models.forest import forest_attention
from rm_gallery.core.models.last_token import (
    read_at,
    score_texts,
    share_beginnings,
    shares_beginnings,
    will_share,
)
from rm_gallery.core.models.weights import inner_model
from tests.models.test_scoring import SIZES, VOCABULARY, gradients

pytestmark = pytest.mark.usefixtures("one_thread")
PAD = 3
KINDS = {
    "llama": (LlamaForSequenceClassification, LlamaConfig),
    "qwen": (Qwen2ForSequenceClassification, Qwen2Config),
}


def classifier(kind: str, labels: int, pad: int | None = PAD):
    torch.manual_seed(0)
    model, config = KINDS[kind]
    net = model(config(**SIZES, num_labels=labels, pad_token_id=pad))
    with torch.no_grad():  # the default initialisation is so small that errors would hide
        for parameter in net.parameters():
            parameter.normal_(0, 0.2)
    return net.eval()


@st.composite
def batches(draw):
    """Texts that may begin alike, equal one another, and end with the token that is also padding; right-padded."""
    stems = draw(
        st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=30), min_size=1, max_size=2)
    )
    own = st.lists(st.integers(1, VOCABULARY - 1), max_size=5)
    ends = st.lists(st.just(PAD), max_size=2)
    texts = [[*draw(st.sampled_from(stems)), *draw(own), *draw(ends)] for _ in range(draw(st.integers(1, 5)))]
    texts = [[PAD + 1, *text] for text in texts]  # never padding alone
    width = max(map(len, texts))
    ids = torch.tensor([text + [PAD] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    return ids, mask


@settings(max_examples=30)
@given(batch=batches(), kind=st.sampled_from(sorted(KINDS)), labels=st.sampled_from([1, 3]))
def test_scores_and_gradients_are_those_of_a_padded_batch(batch, kind, labels):
    ids, mask = batch
    plain = classifier(kind, labels)
    shared = copy.deepcopy(plain)
    share_beginnings(shared)
    expected = plain(input_ids=ids, attention_mask=mask).logits
    found = shared(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    weight = torch.arange(1.0, expected.numel() + 1).view_as(expected)
    wanted = gradients(plain, (weight * expected).sum())
    for name, got in gradients(shared, (weight * found).sum()).items():
        scale = max(1.0, wanted[name].abs().max().item())
        torch.testing.assert_close(got / scale, wanted[name] / scale, atol=2e-5, rtol=0, msg=name)


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "adapters"])
def test_under_checkpoints_and_adapters_gradients_are_the_same(adapters):
    plain = classifier("llama", 1)
    if adapters:
        plain = get_peft_model(plain, LoraConfig(r=2, task_type="SEQ_CLS", modules_to_save=["score"]))
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                if "lora" in name:
                    parameter.normal_(0, 0.2)
        plain.enable_input_require_grads()
    shared = copy.deepcopy(plain)
    shared.train().gradient_checkpointing_enable()
    assert shares_beginnings(shared, training=True)
    share_beginnings(shared)
    ids = torch.tensor([[*range(4, 30), 31, 32], [*range(4, 30), 33, PAD]])
    mask = torch.tensor([[1] * 28, [1] * 27 + [0]])
    results = []
    for net in (plain, shared):
        with forest_attention(inner_model(net)) if net is shared else contextlib.nullcontext():
            net.zero_grad()
            net(input_ids=ids, attention_mask=mask).logits.sum().backward()
        results.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    assert any("score" in name for name in results[0])
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, atol=1e-4, rtol=1e-4, msg=name)


def test_in_bfloat16_the_scores_are_as_near_as_rounding_lets_them():
    net = classifier("llama", 2)
    texts = [tuple(range(4, 40)), (*range(4, 30), 50)]
    expected = score_texts(net, texts)
    with torch.autocast("cpu", torch.bfloat16):
        found = score_texts(net, texts).float()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


class MeanOfTokens(LlamaForSequenceClassification):
    """What somebody's own code may do with the same configuration."""

    def forward(self, input_ids, attention_mask=None, **_):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutputWithPast(logits=self.score(hidden.mean(1)))


def test_what_two_responses_to_a_question_begin_with_is_read_once(monkeypatch):
    read = []
    original = last_token.plant
    monkeypatch.setattr(
        last_token, "plant", lambda *asked, **options: read.append(original(*asked, **options)) or read[-1]
    )
    question = tuple(range(4, 34))
    score_texts(classifier("llama", 1), [(*question, 40), (*question, 41, 42), (*question, 40)])
    assert len(read[0].ids) == 30 + 1 + 2


def test_a_text_is_read_up_to_its_last_token_that_is_no_padding():
    assert read_at([5, 6, PAD, 7, PAD, PAD], PAD) == (5, 6, PAD, 7)
    assert read_at([5, PAD], None) == (5, PAD)
    assert read_at([PAD, PAD], PAD) == (PAD,)


def test_only_a_decoder_with_plain_attention_is_read_so():
    assert shares_beginnings(classifier("llama", 1))
    assert will_share(LlamaConfig(**SIZES))
    assert not will_share(LlamaConfig(**SIZES, attention_dropout=0.1)), "which is drawn in training"
    assert not will_share(MistralConfig(**SIZES, sliding_window=4))
    assert not will_share(LlamaConfig(**SIZES, is_causal=False)), "which reads from both ends"
    assert not will_share(BertConfig())
    assert not shares_beginnings(MeanOfTokens(LlamaConfig(**SIZES, num_labels=1)))
