"""What is written behind a shared prompt is what `generate` writes behind every row by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    GenerationConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
)

from rm_gallery.core.models import writing
from rm_gallery.core.models.writing import write
from tests.models.test_scoring import SIZES, VOCABULARY, model, windowed

pytestmark = pytest.mark.usefixtures("one_thread")

PAD, LIMIT = 0, 6


@pytest.fixture(params=["grown", "repeated"])
def way(request, monkeypatch):
    """How samples share their prompt: as a tree, or its cache repeated, as elsewhere than on a CPU."""
    if request.param == "repeated":
        monkeypatch.setattr(writing, "fits_forest", lambda _: False)


class Even(LogitsProcessor):
    """Forbids odd tokens where a row's length is odd, so that it matters that processors see whole rows."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        odd = (input_ids != PAD).sum(1, keepdim=True) % 2 * torch.arange(scores.size(1)) % 2
        return scores.masked_fill(odd.bool(), -torch.inf)


def config(sampled: bool, ends: list[int]) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=LIMIT,
        do_sample=sampled,
        temperature=0.8,
        top_k=0,
        eos_token_id=ends,
        pad_token_id=PAD,
    )


def plain(net, prompts, rows, asked, processors) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompts[row])) + list(prompts[row]) for row in rows])
    mask = torch.tensor([[0] * (width - len(prompts[row])) + [1] * len(prompts[row]) for row in rows])
    with torch.no_grad():
        output = net.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=asked,
            logits_processor=LogitsProcessorList(processors),
        )
    return output[:, width:].tolist()


tokens = st.integers(1, VOCABULARY - 1)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stem=st.lists(tokens, max_size=20),
    tails=st.lists(st.lists(tokens, min_size=2, max_size=9), min_size=1, max_size=4),
    data=st.data(),
    kind=st.sampled_from(["llama", "qwen"]),
    sampled=st.booleans(),
    processed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_same_seed_writes_the_same_tokens(way, stem, tails, data, kind, sampled, processed, seed):
    net = model(kind)
    prompts = [tuple(stem + tail) for tail in tails]  # some may be equal
    rows = data.draw(st.lists(st.integers(0, len(prompts) - 1), min_size=1, max_size=9))
    # many tokens that end, so that rows end at different times
    asked = config(sampled, ends=list(range(1, VOCABULARY, 4)))
    processors = [Even()] if processed else []
    torch.manual_seed(seed)
    expected = plain(net, prompts, rows, asked, processors)
    torch.manual_seed(seed)
    found = write(net, prompts, rows, config=asked, processors=LogitsProcessorList(processors))
    assert found == expected


def test_rows_also_end_where_they_are_told_to(way):
    """By their own tokens alone, whatever the prompt holds."""
    net, prompts, rows = model("llama"), [(5, 6, 7, 9), (9, 9)], [0, 1] * 8
    asked = config(True, ends=[VOCABULARY + 1])
    torch.manual_seed(0)
    whole = write(net, prompts, rows, config=asked)
    torch.manual_seed(0)
    cut = write(net, prompts, rows, config=asked, until=lambda tokens: tokens[-1] % 3 == 0)
    places = [next((i for i, token in enumerate(row) if token % 3 == 0), LIMIT) for row in whole]
    assert len(set(places)) > 2
    first = [row[: place + 1] for row, place in zip(whole, places, strict=True)]
    # what is drawn after one row has ended depends on the other rows
    earliest = min(places)
    for row, other, place in zip(cut, first, places, strict=True):
        assert row[: earliest + 1] == other[: earliest + 1]
        own = next((i for i, token in enumerate(row) if token % 3 == 0), len(row))
        assert set(row[own + 1 :]) <= {PAD}
        assert place > earliest or own == earliest


def test_samples_that_agree_so_far_are_computed_once():
    """Eight greedy samples of two prompts: one token a prompt and step."""
    net, read = model(), []
    net.model.embed_tokens.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    prompts = [(5, 6, 7), (8, 9)]
    found = write(net, prompts, [0, 1] * 8, config=config(False, ends=[VOCABULARY + 1]))
    assert len(found) == 16
    assert len(found[0]) == LIMIT
    assert read == [5] + [2] * (LIMIT - 1)


def test_a_model_that_scales_its_logits_is_drawn_from_as_it_is():
    """Granite divides them behind its head; the head alone is another temperature."""
    torch.manual_seed(0)
    net = GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=8.0)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.5)
    prompts, rows, asked = [(5, 6, 7), (8, 9)], [0, 1] * 8, config(True, ends=[VOCABULARY + 1])
    torch.manual_seed(1)
    expected = plain(net, prompts, rows, asked, [])
    torch.manual_seed(1)
    assert write(net, prompts, rows, config=asked) == expected


def test_behind_a_common_beginning_a_window_sees_as_much(monkeypatch):
    """Prompts of unequal length have padding behind what they share, which a window would count."""
    net, stem = windowed(), list(range(20, 40))
    prompts = [(*stem, 5, 6, 7), (*stem, *range(1, 12)), (*stem, *range(9, 15))]
    rows, asked = [0, 1, 2], config(False, ends=[VOCABULARY + 1])
    expected = plain(net, prompts, rows, asked, [])
    assert write(net, prompts, rows, config=asked) == expected
    monkeypatch.setattr(writing, "may_share_stems", lambda *_: True)
    assert write(net, prompts, rows, config=asked) != expected, "or this would show nothing"
