"""A model in this process: concurrent calls share batches, and get what they would have got alone."""

from __future__ import annotations

import asyncio
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models import ChatError, OpenAIChatModel
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


class Held:
    """Notes what it is asked, and answers once it is released."""

    def __init__(self):
        self.started, self.release = threading.Event(), threading.Event()
        self.asked = []

    def __call__(self, judge, conversations):
        self.asked.append([conversation[0]["content"] for conversation in conversations])
        self.started.set()
        assert self.release.wait(10)
        return self.asked[-1]


def test_what_comes_while_a_batch_runs_is_the_next_one_without_what_was_cancelled(model):
    how = Held()

    async def many():
        first = asyncio.create_task(model.abatched(ask("first"), how))
        await asyncio.to_thread(how.started.wait, 10)
        later = [asyncio.create_task(model.abatched(ask(str(i)), how)) for i in range(4)]
        while model.totals.requests < 5:
            await asyncio.sleep(0.001)
        later[1].cancel()
        await asyncio.sleep(0.05)  # from this loop to the one in the background
        how.release.set()
        return await asyncio.gather(first, *later, return_exceptions=True)

    first, *later = asyncio.run(many())
    assert first == "first"
    assert [answer for i, answer in enumerate(later) if i != 1] == ["0", "2", "3"]
    assert isinstance(later[1], asyncio.CancelledError)
    assert how.asked == [["first"], ["0", "2", "3"]]


def test_a_closed_model_answers_what_it_was_asked_and_may_be_asked_again(model):
    how = Held()
    with ThreadPoolExecutor() as pool:
        before = pool.submit(lambda: asyncio.run(model.abatched(ask("before"), how)))
        assert how.started.wait(10)
        closed = pool.submit(model.close)
        assert not before.done()
        how.release.set()
        closed.result(10)
        assert before.result(10) == "before"
    assert asyncio.run(model.abatched(ask("after"), how)) == "after"
    assert how.asked == [["before"], ["after"]]


def test_an_unknown_engine_and_options_of_another_are_refused(tiny_model):
    with pytest.raises(ConfigError, match="transformers or vllm"):
        OpenAIChatModel(str(tiny_model), is_local=True, engine="tgi")
    with pytest.raises(ConfigError, match="engine_options are vLLM's"):
        OpenAIChatModel(str(tiny_model), is_local=True, engine_options={"max_model_len": 512})
    with pytest.raises(ConfigError, match="run a folder in this process"):
        OpenAIChatModel("judge", "http://127.0.0.1:1/v1", engine="vllm")
