"""Many prompts and their trees in one pass: the plain computation of each text on its own is the reference."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM

from rm_gallery.core.models import forest as forests
from rm_gallery.core.models.scoring import project_edges
from rm_gallery.core.models.tree import Tree
from tests.models.test_scoring import SIZES, VOCABULARY, gradients, model

pytestmark = pytest.mark.usefixtures("one_thread")

tokens = st.integers(1, VOCABULARY - 1)
END = 0
"""Ends each text, so that none is the beginning of another."""


@pytest.fixture(scope="module", autouse=True, params=[64, 3], ids=["whole", "in pieces"])
def _queries(request):
    """These prompts are short: attention in pieces of three tokens is that of long ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(forests._QUERIES, "cpu", request.param)
        yield


@st.composite
def texts(draw, most: int = 5):
    found = draw(
        st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=most, unique_by=tuple)
    )
    return [[*text, END] for text in found]


@st.composite
def prompts(draw):
    """Sorted, distinct, many with long beginnings in common, some the beginning of another."""
    stem = st.lists(tokens, max_size=4) | st.lists(tokens, min_size=16, max_size=24)  # worth sharing from 16
    stems = draw(st.lists(stem, min_size=1, max_size=3))
    found = {
        (*draw(st.sampled_from(stems)), *draw(st.lists(tokens, min_size=1, max_size=8)))
        for _ in range(draw(st.integers(1, 6)))
    }
    return sorted(found | {prompt[:-2] for prompt in list(found)[:2] if len(prompt) > 3})


def plain(net, prompt, text):
    """The log-probability of each token of a text behind a prompt, alone."""
    ids = torch.tensor([[*prompt, *text]])
    logits = net(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(text).unsqueeze(-1)).squeeze(-1)


def planted(net, asked, tree, rooted=0):
    cache = None
    if rooted:
        with torch.no_grad():
            cache = forests.encode_root(net, asked[0][:rooted])
    forest = forests.plant(asked, tree, rooted=rooted)
    hidden = forests.encode_forest(net, forest, cache)
    places = forest.readings()
    return project_edges(net.get_output_embeddings(), hidden[places], tree)


@given(texts=texts())
def test_a_tree_holds_the_texts_and_no_beginning_twice(texts):
    tree = Tree.of(texts)
    assert [[tree.edges[edge][1] for edge in path] for path in tree.paths] == texts
    beginnings = {tuple(text[: i + 1]) for text in texts for i in range(len(text) - 1)}
    assert sorted(map(tuple, map(tree.before, range(len(tree.tokens))))) == sorted(beginnings)
    assert tree.depths() == [len(tree.before(node)) for node in range(len(tree.tokens))]


@settings(max_examples=40)
@given(
    asked=prompts(),
    texts=texts(),
    kind=st.sampled_from(["llama", "qwen"]),
    rooted=st.booleans(),
)
def test_each_text_has_the_probability_that_it_has_alone(asked, texts, kind, rooted):
    net, tree = model(kind), Tree.of(texts)
    with torch.no_grad():
        found = planted(net, asked, tree, forests.root(asked) if rooted else 0)
        for prompt, edges in zip(asked, found, strict=True):
            for text, path in zip(texts, tree.paths, strict=True):
                torch.testing.assert_close(edges[list(path)], plain(net, prompt, text), atol=2e-5, rtol=1e-5)


@settings(max_examples=15)
@given(asked=prompts(), texts=texts(3))
def test_gradients_are_those_of_the_plain_computation(asked, texts):
    net, tree = model(), Tree.of(texts)
    expected = gradients(net, sum(plain(net, p, t).sum() for p in asked for t in texts))
    found = planted(net, asked, tree)
    got = gradients(net, sum(found[:, list(path)].sum() for path in tree.paths))
    for name, gradient in got.items():
        scale = max(1.0, expected[name].abs().max().item())
        torch.testing.assert_close(gradient / scale, expected[name] / scale, atol=2e-5, rtol=0)


@given(asked=prompts(), texts=texts())
def test_a_beginning_that_is_worth_it_lies_there_once(asked, texts):
    """And every token knows how many stand before it in its own text."""
    tree = Tree.of(texts)
    forest = forests.plant(asked, tree)
    saved = sum(forests.shared(a, b) for a, b in pairwise(asked))
    assert len(forest.ids) == sum(map(len, asked)) - saved + len(asked) * len(tree.tokens)
    ends = forest.positions[forest.ends].tolist()
    assert ends == [len(prompt) - 1 for prompt in asked]
    assert [forest.ids[end].item() for end in forest.ends] == [prompt[-1] for prompt in asked]
    covered = [place for block in forest.blocks for place in range(*block.queries)]
    assert covered == list(range(len(forest.ids)))


@given(asked=prompts(), texts=texts(), budget=st.integers(1, 300))
def test_batches_hold_every_prompt_and_keep_to_the_budget(asked, texts, budget):
    tree = Tree.of(texts)
    parts = forests.batches(asked, tree, budget)
    assert [i for part in parts for i in part] == list(range(len(asked)))
    for part in parts:
        assert len(part) == 1 or len(forests.plant([asked[i] for i in part], tree).ids) <= budget


def test_the_cache_of_the_root_is_left_as_it_was():
    """It serves the next batch too."""
    net, asked = model(), [tuple([5] * 20 + [i]) for i in range(3)]
    with torch.no_grad():
        cache = forests.encode_root(net, asked[0][:20])
        forest = forests.plant(asked, Tree(), rooted=20)
        first, again = (forests.encode_forest(net, forest, cache) for _ in range(2))
    assert len(forest.ids) == 3
    torch.testing.assert_close(first, again, atol=0, rtol=0)


def test_attention_is_the_models_own_again_afterwards():
    net = model()
    before = net.config._attn_implementation
    with contextlib.suppress(KeyboardInterrupt), forests.forest_attention(net):
        assert net.config._attn_implementation != before
        raise KeyboardInterrupt
    assert net.config._attn_implementation == before


def test_attention_of_another_kind_is_told():
    windowed = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4))
    assert not forests.fits_forest(windowed)
    assert forests.fits_forest(model())
    assert forests.fits_forest(model("qwen"))
    with torch.no_grad(), pytest.raises(NotImplementedError, match="sliding_window"):
        planted(windowed, [(1, 2)], Tree.of([[3, END]]))
