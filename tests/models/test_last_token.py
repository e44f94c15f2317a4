"""Scores at the last token, of texts that begin alike: transformers' padded batch is the reference."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from rm_gallery.core.models import last_token
from rm_gallery.core.models.last_token import (
    read_at,
    score_texts,
    share_beginnings,
    shares_beginnings,
    will_share,
)
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
    assert not will_share(BertConfig())
    assert not shares_beginnings(torch.nn.Linear(1, 1))
