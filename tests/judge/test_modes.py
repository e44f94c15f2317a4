"""The three ways to ask a local judge; for `expected` the reference is each verdict's text alone, by a plain forward."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from rm_gallery.core.errors import ConfigError, InvalidVerdict
from rm_gallery.core.judge import Answer, LocalJudge
from rm_gallery.core.judge.read import DASHES, tally, weigh
from rm_gallery.core.judge.sampling import _Drawn
from rm_gallery.core.models import forest
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask
from tests.judge.tasks import FirstCharacter
from tests.tiny import build_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS = [PointwiseTask(), PairwiseTask()]
RUBRIC = "A rubric that all of the questions begin with. "
ASKED = ["", "a", RUBRIC, RUBRIC + "x", RUBRIC + "y" * 90, RUBRIC + "y" * 90 + "z", "bcd" * 50, "a"]


def conversations(texts):
    return [[{"role": "user", "content": text}] for text in texts]


def brute_force(judge, task, conversation):
    """Log-probabilities: every verdict's text alone behind the prompt, no cache, no padding, no batch."""
    encode = judge.tokenizer
    prompt = encode(judge.render(conversation), add_special_tokens=False)["input_ids"]
    found = []
    for verdict in task.verdicts():
        text = encode(task.format(verdict) + "<|end|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = judge.model(torch.tensor([prompt + text]), use_cache=False).logits[
                0, len(prompt) - 1 : -1
            ]
        scores = logits.double().log_softmax(-1).gather(-1, torch.tensor(text).unsqueeze(-1))
        found.append(scores.sum().item())
    return found


def assert_close(answer, expected, task):
    """`expected` are log-probabilities."""
    total = np.logaddexp.reduce(expected)
    assert answer.probabilities == pytest.approx(np.exp(np.array(expected) - total), abs=1e-5)
    assert answer.mass == pytest.approx(math.exp(total), rel=1e-4)
    assert answer.verdict == list(task.verdicts())[int(np.argmax(answer.probabilities))]
    ordered = sorted(expected)
    if ordered[-1] - ordered[-2] > 1e-3:  # else rounding decides, in both
        assert answer.verdict == list(task.verdicts())[int(np.argmax(expected))]


def ask(judge, task, texts, mode="expected", **options):
    return judge.answer(task, conversations(texts), mode=mode, **{"max_new_tokens": 6, **options})


# -- expected


@pytest.mark.parametrize("sharing", [True, False], ids=["shared", "not-shared"])
@pytest.mark.parametrize("batch_tokens", [1, 400, 100_000])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_expected_is_constrained_by_brute_force(tiny_model, monkeypatch, task, batch_tokens, sharing):
    if not sharing:
        monkeypatch.setattr(forest, "_WORTH", 10**6)
    judge = LocalJudge.load(tiny_model, batch_tokens=batch_tokens)
    answers = ask(judge, task, ASKED)
    for answer, conversation in zip(answers, conversations(ASKED), strict=True):
        assert_close(answer, brute_force(judge, task, conversation), task)
    assert len({answer.probabilities for answer in answers}) > 5, "else the comparison could not fail"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.sampled_from(ASKED) | st.text(max_size=20), min_size=1, max_size=8),
    task=st.sampled_from(TASKS),
    batch_tokens=st.integers(1, 2000),
    padding=st.sampled_from(["left", "right"]),
    data=st.data(),
)
def test_neither_batch_nor_order_nor_padding_matters(tiny_model, texts, task, batch_tokens, padding, data):
    judge = LocalJudge.load(tiny_model, batch_tokens=batch_tokens)
    judge.tokenizer.padding_side = padding
    straight = ask(judge, task, texts)
    assert all(sum(answer.probabilities) == pytest.approx(1, abs=1e-12) for answer in straight)
    assert all(0 <= answer.mass <= 1 for answer in straight)
    order = data.draw(st.permutations(range(len(texts))))
    assert ask(judge, task, [texts[i] for i in order]) == [straight[i] for i in order]
    alone = [ask(judge, task, [text])[0] for text in texts]
    for one, many in zip(alone, straight, strict=True):
        assert many.probabilities == pytest.approx(one.probabilities, abs=1e-5)
        assert many.mass == pytest.approx(one.mass, rel=1e-4)


def test_hundreds_of_verdicts_are_one_tree(tiny_model):
    task, judge = MultiDimensionTask(), LocalJudge.load(tiny_model)
    [answer] = ask(judge, task, ["how good?"])
    [conversation] = conversations(["how good?"])
    assert len(answer.probabilities) == 125
    assert_close(answer, brute_force(judge, task, conversation), task)


def test_attention_with_a_window_is_weighed_too():
    """By rows behind each prompt, for a forest knows only plain attention."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=len(tokenizer), **sizes, num_key_value_heads=2, sliding_window=16)
    judge = LocalJudge(MistralForCausalLM(config).eval(), tokenizer)
    assert not forest.fits_forest(judge.model)
    for answer, conversation in zip(ask(judge, TASKS[0], ASKED), conversations(ASKED), strict=True):
        assert_close(answer, brute_force(judge, TASKS[0], conversation), TASKS[0])


def convolutional():
    """Every other layer keeps a state of its convolution, and no keys."""
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=len(build_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        initializer_range=0.1,
    )
    return LocalJudge(Lfm2ForCausalLM(config).eval(), build_tokenizer())


def test_layers_without_keys_are_weighed_too():
    judge = convolutional()
    for answer, conversation in zip(ask(judge, TASKS[0], ASKED), conversations(ASKED), strict=True):
        assert_close(answer, brute_force(judge, TASKS[0], conversation), TASKS[0])


def test_layers_without_keys_write_as_transformers_does():
    judge = convolutional()
    for text, written in zip(ASKED, judge.generate(conversations(ASKED), max_new_tokens=6), strict=True):
        prompt = judge.tokenizer(judge.render(conversations([text])[0]), add_special_tokens=False)[
            "input_ids"
        ]
        ids = torch.tensor([prompt])
        alone = judge.model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=judge._plain(6)
        )
        assert written == judge.tokenizer.decode(alone[0, len(prompt) :], skip_special_tokens=True)


def test_a_model_that_bends_its_logits_is_not_asked_for_its_distribution():
    tokenizer = build_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    bent = Gemma2ForCausalLM(
        Gemma2Config(vocab_size=len(tokenizer), **sizes, num_key_value_heads=2, head_dim=8)
    )
    judge = LocalJudge(bent, tokenizer)
    assert judge.modes == ("greedy", "vote")
    with pytest.raises(ConfigError, match="mode expected, only in greedy or vote"):
        ask(judge, TASKS[0], ["a"])


def test_a_judge_that_reasons_has_no_expected(tiny_model):
    thinks = PointwiseTask(think=True)
    for judge, task in (
        (LocalJudge.load(tiny_model), thinks),
        (LocalJudge.load(tiny_model, reasoning_model=True), TASKS[0]),
    ):
        with pytest.raises(ConfigError, match=r"reasons before its verdict.*: use vote, or greedy"):
            ask(judge, task, ["a"])
    assert len(ask(LocalJudge.load(tiny_model), thinks, ["a"], "vote")) == 1


def test_in_bfloat16_too_the_head_computes_in_float32(tiny_model):
    """Logits in bfloat16 have a sixteenth between them where they are 16: verdicts would tie."""
    coarse = LocalJudge.load(tiny_model, dtype="bfloat16")
    exact = LocalJudge.load(tiny_model)
    for found, right in zip(ask(coarse, TASKS[0], ASKED), ask(exact, TASKS[0], ASKED), strict=True):
        assert found.probabilities == pytest.approx(right.probabilities, abs=0.05)
        assert len(set(found.probabilities)) == 5


# -- from numbers to an answer


def test_a_draw_goes_to_the_first_on_the_scale_and_the_smallest_numbers_are_still_a_distribution():
    answer = weigh(TASKS[0], [-900.0, -801.0, -801.0, -900.0, -900.0])
    assert answer.verdict == 1
    assert answer.probabilities == pytest.approx((0, 0.5, 0.5, 0, 0))
    assert answer.mass == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_overflowed_has_said_nothing(bad):
    """It would be the first verdict, with all of the mass."""
    assert weigh(TASKS[0], [-1.0, -1.0, bad, -1.0, -1.0]) == Answer(
        problem="failed: the model's numbers are not finite"
    )
    assert weigh(TASKS[0], [-math.inf] * 5).problem, "no verdict is possible"
    assert weigh(TASKS[0], [-math.inf, -1.0, -math.inf, -2.0, -3.0]).verdict == 1


def test_means_that_are_equal_are_equal_numbers():
    """A tie is told by equal numbers, and 0.1 + 0.2 is not 0.3 in floating point."""
    task = TASKS[0]
    votes = [[0] * 7 + [1] * 3, [0] * 8 + [1, 2]]
    values = [tally(task, [task.format(score) for score in each]).value(task) for each in votes]
    assert values == [0.3, 0.3]


def test_a_vote_counts_the_legal_samples():
    task = PointwiseTask()
    texts = [task.format(3), "neither", task.format(1), task.format(1), task.format(3)]
    answer = tally(task, texts)
    assert answer.verdict == 1, "as many say 3, and 1 stands first on the scale"
    assert answer.probabilities == (0, 0.5, 0, 0.5, 0)
    assert answer.mass == 0.8
    assert answer.text.split(DASHES) == texts
    none = tally(task, ["neither", ""])
    assert none == Answer(text=DASHES.join(["neither", ""]), problem=none.problem, mass=0.0)
    assert none.problem.startswith("unparsable: none of 2 samples")


# -- greedy and vote


def test_greedy_is_transformers_own(tiny_model):
    judge = LocalJudge.load(tiny_model, batch_size=3)
    answers = ask(judge, FirstCharacter(), ASKED, "greedy")
    for answer, conversation in zip(answers, conversations(ASKED), strict=True):
        ids = judge.tokenizer(judge.render(conversation), add_special_tokens=False, return_tensors="pt")
        written = judge.model.generate(**ids, max_new_tokens=6, do_sample=False)[
            :, ids["input_ids"].size(1) :
        ]
        assert answer.text == judge.tokenizer.decode(written[0], skip_special_tokens=True)
        assert answer == Answer(FirstCharacter().parse(answer.text), answer.text)
    assert len({answer.text for answer in answers}) > 1
    [unread] = ask(judge, TASKS[0], ["a"], "greedy")
    assert unread == Answer(text=answers[1].text, problem="unparsable: no <score> tag in the output")


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.sampled_from(ASKED), min_size=1, max_size=6),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_a_vote_depends_on_seed_and_prompt_alone(tiny_model, texts, batch_size, seed, data):
    order = data.draw(st.permutations(range(len(texts))))
    options = {"samples": 4, "seed": seed, "max_new_tokens": 4}
    straight = ask(LocalJudge.load(tiny_model), FirstCharacter(), texts, "vote", **options)
    judge = LocalJudge.load(tiny_model, batch_size=batch_size)
    shuffled = ask(judge, FirstCharacter(), [texts[i] for i in order], "vote", **options)
    assert shuffled == [straight[i] for i in order]
    for answer in straight:
        assert answer == tally(FirstCharacter(), answer.text.split(DASHES))
        if answer.probabilities:
            assert sum(answer.probabilities) == pytest.approx(1, abs=1e-12)


def test_another_seed_votes_otherwise_and_more_samples_begin_alike(tiny_model):
    judge = LocalJudge.load(tiny_model)
    texts = {
        (seed, samples): ask(judge, FirstCharacter(), ["a"], "vote", seed=seed, samples=samples)[0].text
        for seed, samples in ((0, 4), (1, 4), (0, 8))
    }
    assert texts[0, 4] != texts[1, 4]
    assert texts[0, 8].startswith(texts[0, 4])
    assert len(set(texts[0, 8].split(DASHES))) > 1


def test_a_vote_comes_from_the_models_own_distribution(tiny_model):
    """2,000 samples of one token: the shares are the model's probabilities, within four standard errors."""
    judge, task, count = LocalJudge.load(tiny_model, batch_size=500), FirstCharacter(), 2000
    [conversation] = conversations(["how good?"])
    ids = judge.tokenizer(judge.render(conversation), add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        likely = judge.model(**ids).logits[0, -1].double().softmax(-1)
    legal = np.zeros(5)
    for token, probability in enumerate(likely.tolist()):
        with contextlib.suppress(InvalidVerdict):
            legal[task.parse(judge.tokenizer.decode([token], skip_special_tokens=True))] += probability
    [answer] = ask(judge, task, ["how good?"], "vote", samples=count, max_new_tokens=1)
    assert abs(answer.mass - legal.sum()) < 4 * math.sqrt(legal.sum() * (1 - legal.sum()) / count)
    shares = legal / legal.sum()
    errors = 4 * np.sqrt(shares * (1 - shares) / (count * answer.mass))
    assert (np.abs(np.array(answer.probabilities) - shares) < errors).all()


def test_uniform_numbers_become_tokens_in_proportion():
    count = 10_000
    scores = torch.tensor([0.5, 0.2, 0.0, 0.3]).log().expand(count, -1)
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = _Drawn(even.unsqueeze(1))(torch.zeros(count, 0), scores).argmax(-1)
    assert torch.bincount(drawn, minlength=4).tolist() == pytest.approx([5000, 2000, 0, 3000], abs=1)


# -- what cannot be answered, and what is told meanwhile


@pytest.mark.parametrize("mode", ["expected", "greedy", "vote"])
def test_what_is_too_long_is_counted_and_never_cut(tiny_model, mode):
    """The model has room for 2,048 tokens: prompt and answer together."""
    judge, task = LocalJudge.load(tiny_model), PointwiseTask()
    frame = len(judge.encode(conversations([""]))[0])
    room = max(map(len, judge.verdict_tree(task).paths)) if mode == "expected" else 6
    fits, beyond = "w" * (2048 - frame - room), "w" * (2048 - frame - room + 1)
    batches = []
    answers = ask(judge, task, [beyond, "a", fits], mode, samples=2, done=batches.append)
    assert answers[0].problem == (
        f"overlong: the prompt has {2049 - room} tokens and its answer up to {room}, the model's context 2048"
    )
    assert not any(answer.problem.startswith("overlong") for answer in answers[1:])
    assert answers[1] == ask(judge, task, ["a"], mode, samples=2)[0] or mode == "expected"
    assert {i: answer for batch in batches for i, answer in batch.items()} == dict(enumerate(answers))


@pytest.mark.parametrize("mode", ["greedy", "vote"])
def test_a_judge_is_asked_what_leaves_room_for_a_verdict(tiny_model, mode):
    """Its card may allow answers as long as its context, and training kept such prompts."""
    judge, task = LocalJudge.load(tiny_model), PointwiseTask()
    frame = len(judge.encode(conversations([""]))[0])
    room = len(task.format(0)) + 1  # a token a byte, and the end of the turn
    fits, beyond = "w" * (2048 - frame - room), "w" * (2048 - frame - room + 1)
    found = ask(judge, task, [fits, beyond], mode, max_new_tokens=2048, samples=1)
    assert [answer.problem.partition(":")[0] for answer in found] == ["unparsable", "overlong"]
    assert len(found[0].text) <= room


@pytest.mark.parametrize("mode", ["expected", "greedy", "vote"])
def test_each_batch_is_reported_once(tiny_model, mode):
    batches = []
    judge = LocalJudge.load(tiny_model, batch_size=2, batch_tokens=300)
    answers = ask(judge, PointwiseTask(), ASKED, mode, samples=2, done=batches.append)
    assert sorted(i for batch in batches for i in batch) == list(range(len(ASKED)))
    assert {i: answer for batch in batches for i, answer in batch.items()} == dict(enumerate(answers))
    assert len(batches) > 1
    assert answers[ASKED.index("a")] == answers[-1], "the same question has the same answer"
    assert ask(judge, PointwiseTask(), [], mode) == []


def test_a_conversation_that_the_template_refuses_fails_alone(tiny_model):
    judge = LocalJudge.load(tiny_model)
    judge.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + judge.tokenizer.chat_template
    )
    refused = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    answers = judge.answer(PointwiseTask(), [refused, *conversations("a")], mode="expected", max_new_tokens=4)
    assert answers[0] == Answer(problem="failed: the chat template refuses the conversation: no system role")
    assert answers[1].verdict is not None


def test_the_fingerprint_tells_precision_and_model_apart(tiny_model, tmp_path):
    import shutil

    other = shutil.copytree(tiny_model, tmp_path / "other")
    prints = [
        LocalJudge.load(tiny_model).fingerprint,
        LocalJudge.load(tiny_model, dtype="bfloat16").fingerprint,
        LocalJudge.load(tiny_model, reasoning_model=True).fingerprint,
        LocalJudge.load(other).fingerprint,
    ]
    assert len(set(prints)) == 4
    assert LocalJudge.load(tiny_model, batch_size=2).fingerprint == prints[0]
