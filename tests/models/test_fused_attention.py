"""One kernel for a whole forest: the blocks of `block_attention.py` are the reference, on a GPU the plain computation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM

from rm_gallery.core.models import forest as forests
from rm_gallery.core.models import fused_attention
from rm_gallery.core.models.fused_attention import TILE, ForestMask, can_fuse
from rm_gallery.core.models.scoring import score_answers
from rm_gallery.core.models.tree import Tree
from tests.models.test_forest import prompts, texts
from tests.models.test_scoring import SIZES, batch, gradients, model, plain

pytestmark = pytest.mark.usefixtures("one_thread")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def seen(forest: forests.Forest, start: int) -> torch.Tensor:
    """(T, start + T): who sees whom, by the blocks."""
    found = torch.zeros(len(forest.ids), start + len(forest.ids), dtype=torch.bool)
    for block in forest.blocks:
        columns = torch.cat([torch.arange(*span) for span in block.keys])
        count = block.queries[1] - block.queries[0]
        mask = torch.ones(count, len(columns), dtype=torch.bool).tril() if block.mask is None else block.mask
        for row in range(count):
            found[block.queries[0] - start + row, columns[mask[row]]] = True
    return found


@given(asked=prompts(), answers=texts(), rooted=st.booleans())
def test_one_number_a_token_says_who_sees_it(asked, answers, rooted):
    start = forests.root(asked) if rooted else 0
    forest = forests.plant(asked, Tree.of(answers), rooted=start)
    query = torch.arange(len(forest.ids))[:, None] + start
    key = torch.arange(len(forest.until))
    assert torch.equal((key <= query) & (query < forest.until), seen(forest, start))


@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    stem=st.sampled_from([0, 40, 200]),
    answers=texts(),
    rooted=st.booleans(),
)
def test_tiles_that_are_skipped_hide_nothing(lengths, stem, answers, rooted):
    """Texts of several tiles: what the kernel looks at is what somebody sees, and what it does not mask all see."""
    asked = sorted({(*range(1, stem + 1), *[50 + i] * length) for i, length in enumerate(lengths)})
    start = forests.root(asked) if rooted else 0
    forest = forests.plant(asked, Tree.of(answers), rooted=start)
    visible, mask = seen(forest, start), ForestMask.of(forest.until, start)
    assert torch.equal(mask.dense(), visible)
    tiles = pad(visible, (0, -visible.size(1) % TILE, 0, -visible.size(0) % TILE))
    tiles = tiles.unflatten(0, (-1, TILE)).unflatten(2, (-1, TILE)).transpose(1, 2).flatten(2)
    assert torch.equal(mask.tiles.to_dense()[0, 0].bool(), tiles.any(-1))
    for row, count in enumerate(mask.tiles.full_kv_num_blocks[0, 0].tolist()):
        for column in mask.tiles.full_kv_indices[0, 0, row, :count].tolist():
            assert visible[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE].all()


@pytest.fixture
def kernel(monkeypatch, request):
    """On this machine, what stands for the kernel of a GPU; every test asks anew whether it can be used."""
    monkeypatch.setattr(fused_attention, "_kernel", lambda: request.param)
    monkeypatch.setattr(forests, "can_fuse", lambda _: True)
    fused_attention.kernel_is_right.cache_clear()
    yield
    fused_attention.kernel_is_right.cache_clear()


def whole(query, key, value, *, block_mask, scale, enable_gqa, kernel_options):
    """The attention that the kernel computes, from the function that it is compiled from."""
    count, keys = block_mask.seq_lengths
    sees = block_mask.mask_mod(None, None, torch.arange(count)[:, None], torch.arange(keys))
    return scaled_dot_product_attention(query, key, value, attn_mask=sees, scale=scale, enable_gqa=enable_gqa)


def broken(*asked, **options):
    return 2 * whole(*asked, **options)


class _Spoilt(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.full_like(gradient, torch.nan)


def without_gradients(query, *asked, **options):
    return whole(_Spoilt.apply(query), *asked, **options)


def refused(*_, **__):
    raise RuntimeError("no kernel for this GPU")


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (whole, ""),
        (broken, "off by 1.0e+00"),
        (without_gradients, "nan"),
        (refused, "RuntimeError: no kernel for this GPU"),
    ],
    indirect=["kernel"],
    ids=["as it should be", "wrong", "no gradients", "refused"],
)
@pytest.mark.parametrize("checkpoints", [False, True])
def test_scores_and_gradients_are_the_plain_ones_whatever_the_kernel_does(kernel, said, checkpoints, caplog):
    rows = batch([(30, [5, 3, 6]), (45, [4] * 3), (12, [1, 6])], 0, stem=10, words=4)
    net, reference = model("qwen"), model("qwen")
    if checkpoints:
        net.train()
        net.gradient_checkpointing_enable()
    expected = plain(reference, *rows)
    with forests.forest_attention(net):
        found = score_answers(net, *rows).log_probs
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
        got = gradients(net, found.sum())
    for name, wanted in gradients(reference, expected.sum()).items():
        scale = max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(got[name] / scale, wanted / scale, atol=2e-5, rtol=0)
    assert len(caplog.records) == bool(said), "said once"
    assert said in caplog.text


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_reads_the_tiles_as_they_are_meant():
    forest = forests.plant([(*[1] * 200, *[2] * 90), (*[1] * 200, *[3] * 150)], Tree.of([[1, 2], [3, 2]]))
    mask, generator = ForestMask.of(forest.until), torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, n, len(forest.ids), 8, generator=generator) for n in (6, 2, 2))
    found = flex_attention(query, key, value, block_mask=mask.tiles, enable_gqa=True)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=seen(forest, 0), enable_gqa=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_cpu_goes_block_by_block():
    assert not can_fuse("cpu")
    assert forests.plant([(1, 2)], Tree()).blocks


def larger_model():
    """Its heads are as wide as the kernel asks for."""
    torch.manual_seed(0)
    net = LlamaForCausalLM(
        LlamaConfig(**{**SIZES, "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2})
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.1)
    return net.eval()


@on_a_gpu
@pytest.mark.parametrize("stem", [0, 90], ids=["prompts of their own", "a stem in common"])
def test_a_gpu_scores_and_learns_as_the_plain_computation(stem):
    """Log-probabilities and gradients in float32; the second batch has another number of tokens."""
    for seed, groups in enumerate(
        ([(150, [5, 3, 6]), (200, [4] * 3), (100, [1, 6])], [(97, [2, 2]), (310, [6] * 4)])
    ):
        rows = batch(groups, seed, stem=stem, words=4)
        reference, net = larger_model(), larger_model().cuda()
        expected = plain(reference, *rows)
        found = score_answers(net, *(x.cuda() for x in rows)).log_probs
        torch.testing.assert_close(found.cpu(), expected, atol=2e-5, rtol=1e-5)
        wanted = gradients(reference, expected.sum())
        for name, got in gradients(net, found.sum()).items():
            scale = max(1.0, wanted[name].abs().max().item())
            torch.testing.assert_close(got.cpu() / scale, wanted[name] / scale, atol=1e-5, rtol=0, msg=name)
    assert fused_attention.kernel_is_right(torch.device("cuda", 0), torch.float32, (6, 2, 16, 16), 0.25), (
        "and by the kernel"
    )


@on_a_gpu
def test_a_gpu_reads_behind_a_cache():
    asked = [(*range(1, 41), *[41 + i] * (30 * i + 5)) for i in range(5)]
    tree = Tree.of([[1, 2, 3], [1, 4, 3], [5, 3]])
    net = larger_model().cuda()
    with torch.no_grad():
        whole = forests.plant(asked, tree, device="cuda")
        expected = forests.encode_forest(net, whole)[whole.readings()]
        rooted = forests.plant(asked, tree, rooted=40, device="cuda")
        cache = forests.encode_root(net, asked[0][:40])
        found = forests.encode_forest(net, rooted, cache)[rooted.readings()]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert fused_attention.kernel_is_right(torch.device("cuda", 0), torch.float32, (6, 2, 16, 16), 0.25)


@on_a_gpu
def test_a_gpu_in_bfloat16_and_under_checkpoints():
    rows = tuple(x.cuda() for x in batch([(150, [5, 3, 6]), (200, [4] * 3)], 0, stem=40, words=4))
    reference, net = larger_model().cuda(), larger_model().cuda()
    net.train().gradient_checkpointing_enable()
    expected = score_answers(reference, *rows).log_probs
    with torch.autocast("cuda", torch.bfloat16), forests.forest_attention(net):
        found = score_answers(net, *rows).log_probs
        found.sum().backward()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    wanted = gradients(reference, expected.sum())
    for name, parameter in net.named_parameters():
        off = (parameter.grad - wanted[name]).abs().max()
        assert off < 0.1 * wanted[name].abs().max(), name
