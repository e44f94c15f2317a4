"""A model in this process: concurrent calls share batches, and get what they would have got alone."""

from __future__ import annotations

import asyncio
import shutil
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models import ChatError, OpenAIChatModel
from rm_gallery.core.models.batching import Batcher
from rm_gallery.core.tasks import PairwiseTask
from rm_gallery.core.tasks.saved import save_task

pytestmark = pytest.mark.usefixtures("one_thread")


def ask(text):
    return [{"role": "user", "content": text}]


@pytest.fixture
def model(tiny_model):
    model = OpenAIChatModel(str(tiny_model), is_local=True, max_tokens=6)
    yield model
    model.close()


def test_concurrent_calls_get_what_the_judge_writes(model, tiny_model):
    texts = [f"question {i} " * (i % 4) for i in range(12)]

    async def many():
        return await asyncio.gather(*(model.achat(ask(text)) for text in texts))

    together = [response.text for response in asyncio.run(many())]
    assert together == LocalJudge.load(tiny_model).generate([ask(text) for text in texts], max_new_tokens=6)
    assert model.chat(ask(texts[3])).text == together[3]
    assert (model.totals.requests, model.totals.answered, model.totals.uncounted) == (13, 13, 13)


def test_a_saved_judge_carries_its_task_and_length(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "judge")
    save_task(folder, "pairwise", PairwiseTask(), max_response_length=3)
    model = OpenAIChatModel(model=str(folder), is_local=True)
    assert model.task is not None
    assert (model.task.name, model.max_tokens) == ("pairwise", 3)
    assert (
        len(model.chat(ask("which?")).text.encode(errors="replace")) <= 12
    )  # three tokens of this tokenizer
    assert model.chat(ask("which?"), max_tokens=9).text.startswith(model.chat(ask("which?")).text)
    assert OpenAIChatModel("judge", "http://127.0.0.1:1/v1").task is None
    model.close()


def test_a_model_without_a_card_has_no_task(model):
    assert (model.task, model.base_url) == (None, None)
    assert "is_local=True" in repr(model)


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"neither config.json nor adapter_config.json"):
        OpenAIChatModel(str(tmp_path), is_local=True)
    (tmp_path / "fsdp_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="rmg merge"):
        OpenAIChatModel(str(tmp_path), is_local=True)
    with pytest.raises(ConfigError, match="leave base_url"):
        OpenAIChatModel(str(tmp_path), "http://127.0.0.1:1/v1", is_local=True)


@pytest.mark.parametrize(
    "options",
    [{"n": 2}, {"temperature": 1.0}, {"logprobs": 3}, {"response_format": {"type": "json_object"}}],
)
def test_what_greedy_decoding_cannot_do_is_refused(model, options):
    with pytest.raises(ConfigError, match="greedy decoding"):
        model.chat(ask("q"), **options)


def test_a_structure_is_checked_too(model):
    class Score(BaseModel):
        score: int

    with pytest.raises(ChatError, match="is no Score") as caught:
        model.chat(ask("q"), response_format=Score)
    assert caught.value.kind == "invalid_output"


def test_one_bad_conversation_fails_alone(tiny_model, tmp_path):
    """Templates of real models refuse roles in an order that they were not trained on."""
    folder = shutil.copytree(tiny_model, tmp_path / "strict")
    template = folder / "chat_template.jinja"
    refusal = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('begin with the user') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    model = OpenAIChatModel(str(folder), is_local=True, max_tokens=4)

    async def many():
        asked = [ask("fine"), [{"role": "assistant", "content": "I begin"}], ask("fine")]
        return await asyncio.gather(*map(model.achat, asked), return_exceptions=True)

    first, bad, last = asyncio.run(many())
    model.close()
    assert first.text == last.text
    assert (type(bad), bad.kind) == (ChatError, "local")
    assert "begin with the user" in str(bad)
    assert bad.__cause__ is not None
    assert (model.totals.answered, model.totals.failed) == (2, 1)


# -- the batches themselves


class Recorder:
    """Answers with the text and the length it was asked for, and records its batches."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, conversations, length):
        self.go.wait(5)
        self.batches.append((len(conversations), length))
        if any(c[0]["content"] == "bad" for c in conversations):
            raise ValueError("bad one")
        return [f"{c[0]['content']} {length}" for c in conversations]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "bad"]), st.integers(1, 3)), min_size=1, max_size=12),
    st.integers(1, 8),
)
def test_everyone_gets_their_own_answer(asked, largest):
    recorder = Recorder()
    batcher = Batcher(recorder, gather=0.001, largest=largest)
    answers = [batcher.submit(ask(text), length) for text, length in asked]
    for (text, length), answer in zip(asked, answers, strict=True):
        if text == "bad":
            assert isinstance(answer.exception(5), ValueError)
        else:
            assert answer.result(5) == f"{text} {length}"
    batcher.close()
    assert max(size for size, _ in recorder.batches) <= largest


def test_what_comes_while_a_batch_runs_is_the_next_one():
    recorder = Recorder()
    recorder.go.clear()
    batcher = Batcher(recorder, gather=0.0, largest=64)
    answers = [batcher.submit(ask("first"), 1)]
    while not batcher._waiting.empty():
        pass
    answers += [batcher.submit(ask(str(i)), 1) for i in range(20)]
    recorder.go.set()
    assert [answer.result(5) for answer in answers] == ["first 1", *(f"{i} 1" for i in range(20))]
    assert [size for size, _ in recorder.batches] == [1, 20]
    batcher.close()


def test_a_question_cancelled_in_time_is_not_asked():
    recorder = Recorder()
    recorder.go.clear()
    batcher = Batcher(recorder, gather=0.0)
    first = batcher.submit(ask("first"), 1)
    while not batcher._waiting.empty():
        pass
    gone, last = batcher.submit(ask("gone"), 1), batcher.submit(ask("last"), 1)
    assert gone.cancel()
    recorder.go.set()
    assert (first.result(5), last.result(5)) == ("first 1", "last 1")
    batcher.close()
    assert sum(size for size, _ in recorder.batches) == 2
    assert batcher.submit(ask("again"), 1).result(5) == "again 1"  # closing is no end
    batcher.close()
