"""Judges that reason: what sft trains is what is asked and read at use, and what is cut off is seen to be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.data.samples import Message, Sample
from rm_gallery.core.errors import ConfigError, DataError, UnfinishedReasoning
from rm_gallery.core.evaluate import score_outputs
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.tasks import PointwiseTask
from rm_gallery.core.templates.base import after_reasoning
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local.answers import reasoning_of, with_reasoning, written
from rm_gallery.core.train.local.grpo import RewardFunction
from rm_gallery.core.train.rows import build_examples
from tests.tiny import CHAT_TEMPLATE, build_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
TAIL = "{% if add_generation_prompt and enable_thinking is defined %}"
TEMPLATES = {
    "plain": CHAT_TEMPLATE,
    # as Qwen3's: an empty reasoning is written where thinking is off
    "closes": CHAT_TEMPLATE
    + TAIL
    + "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    # as DeepSeek-R1's and Qwen3-Thinking's: the reasoning is begun for the model
    "opens": CHAT_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}",
}
SETTINGS = {
    "plain, asked to think": ("plain", {"prompt": {"think": True}}),
    "thinks by itself": ("closes", {"model": {"reasoning_model": True}}),
    "its template thinks": ("opens", {"model": {"reasoning_model": True}}),
    "no reasoning": ("plain", {}),
    "thinking switched off": ("closes", {}),
}


def tokenizer_of(name: str):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATES[name]
    return tokenizer


def configured(path="m", **changes):
    config = {
        "method": "sft",
        "model": {"path": str(path), "dtype": "float32", **changes.pop("model", {})},
        "data": {"train": "rows.jsonl", **changes.pop("data", {})},
        "rollout": {"max_response_length": 200, **changes.pop("rollout", {})},
        **changes,
    }
    return check_config(config)


def row(i: int, reasoning: str | None, key: str = "reasoning", label: int | None = None) -> dict:
    turns = (Message("user", f"question {i}"),)
    labels = {"helpfulness": i % 5 if label is None else label}
    made = Sample(turns, f"answer {i}", labels, f"row-{i}", metadata={}).to_row()
    return made if reasoning is None else {**made, key: reasoning}


# -- what must hold


@pytest.mark.parametrize(("template", "changes"), SETTINGS.values(), ids=SETTINGS)
@given(label=st.integers(0, 4), reasoning=st.text(min_size=1, max_size=40).filter(str.strip))
def test_what_is_trained_is_asked_and_read_at_use(template, changes, label, reasoning):
    """The prompt is the judge's own, and the answer, read as the judge's is, gives the label."""
    config = configured(**{key: dict(value) for key, value in changes.items()})
    task, tokenizer = config.build_task(), tokenizer_of(template)
    asker = LocalJudge(None, tokenizer, reasoning_model=config.model.reasoning_model)
    examples = build_examples(task, [row(1, reasoning, label=label)])
    kept, [tokens], notes = written(config, task, asker, examples)
    assert (len(kept), notes) == (1, [])
    assert tokenizer.decode(tokens.prompt) == asker.render(kept[0].messages)
    answer = tokenizer.decode(tokens.answer)
    assert answer.endswith("<|end|>")
    text = asker.opening + answer.removesuffix("<|end|>")
    assert task.parse(text) == label
    reasons = bool(changes)
    assert (reasoning.strip() in text) or not reasons
    assert ("<think>" in text) == ("</think>" in text) == reasons or "think>" in reasoning


@pytest.mark.parametrize("cut", [1, 9, 20])
@pytest.mark.parametrize("template", ["closes", "opens"])
def test_an_answer_that_is_cut_off_while_reasoning_has_no_verdict(template, cut, tiny_model):
    """Also where the text holds a verdict that was only thought of."""
    asker = LocalJudge(None, tokenizer_of(template), reasoning_model=True)
    task = PointwiseTask()
    thought = "<think>\n<score>4</score>? No, worse.\n</think>\n\n<score>1</score>".removeprefix(
        asker.opening
    )
    whole = RewardFunction(task, build_examples(task, [row(1, None)]), asker.opening)
    logged: dict[str, float] = {}

    def earned(text):
        return whole(completions=[[{"content": text}]], index=[0], log_metric=logged.__setitem__)

    assert earned(thought) == [1.0]
    before_the_end = thought[: thought.index("</think>") + cut - 1]
    if "</think>" not in before_the_end:
        assert earned(before_the_end) == [0.0]
        assert logged["parse_rate"] == 0
        [made] = [score_outputs(task, [row(1, None)], [asker.opening + before_the_end])]
        assert made.problem[0].startswith("unfinished: ")
        with pytest.raises(UnfinishedReasoning):
            after_reasoning(asker.opening + before_the_end)


# -- cases


def test_what_the_template_begins_is_part_of_what_the_judge_wrote(tiny_model, tmp_path):
    from rm_gallery.core.models.weights import load_model

    judge = LocalJudge(load_model(tiny_model).eval(), tokenizer_of("opens"), reasoning_model=True)
    task = PointwiseTask()
    asked = [task.messages(row(i, None)) for i in range(3)]
    for mode in ("greedy", "vote"):
        answers = judge.answer(task, asked, mode=mode, max_new_tokens=6, samples=2)
        assert all(answer.problem.startswith("unfinished: ") for answer in answers)
        assert all(answer.text.startswith("<think>\n") for answer in answers)
    assert all(text.startswith("<think>\n") for text in judge.generate(asked, max_new_tokens=3))
    with pytest.raises(ConfigError, match="reasons before its verdict"):
        LocalJudge(judge.model, judge.tokenizer).answer(task, asked, mode="expected", max_new_tokens=6)


def test_a_template_that_thinks_is_not_trained_without_a_reasoning():
    config = configured()
    asker = LocalJudge(None, tokenizer_of("opens"))
    with pytest.raises(ConfigError, match=r"model\.reasoning_model to true"):
        written(config, config.build_task(), asker, build_examples(config.build_task(), [row(1, "why")]))


@pytest.mark.parametrize("place", ["column", "metadata"])
def test_rows_without_a_reasoning_are_left_out_and_counted(place):
    config = configured(prompt={"think": True}, sft={"reasoning": "why"})
    rows = [row(i, "because" if i % 3 else None, "why") for i in range(9)] + [row(9, "  ", "why")]
    if place == "metadata":
        rows = [{**each, "metadata": {"why": each.pop("why", None)}} for each in rows]
    kept, notes = with_reasoning(config, build_examples(config.build_task(), rows))
    assert len(kept) == 6
    assert notes == ["4 training rows have no reasoning and are left out"]
    misspelt = configured(prompt={"think": True}, sft={"reasoning": "whi"})
    with pytest.raises(
        DataError, match=r"no row of rows.jsonl has a text in the column 'whi'.*Did you mean 'why'"
    ):
        with_reasoning(misspelt, build_examples(config.build_task(), rows[1:]))
    without = configured()
    assert len(with_reasoning(without, kept)[0]) == 6


def test_a_reasoning_that_is_longer_than_answers_may_be_is_left_out():
    config = configured(prompt={"think": True}, rollout={"max_response_length": 60})
    task = config.build_task()
    rows = [row(i, "w" * (20 if i < 3 else 200)) for i in range(5)]
    asker = LocalJudge(None, tokenizer_of("plain"))
    kept, tokens, notes = written(config, task, asker, build_examples(task, rows))
    assert (len(kept), len(tokens)) == (3, 3)
    assert notes == ["2 training answers are over rollout.max_response_length and left out"]
    with pytest.raises(DataError, match=r"all 2 answers are longer than rollout\.max_response_length=60"):
        written(config, task, asker, build_examples(task, rows[3:]))


def test_from_a_reasoning_to_a_judge_that_is_evaluated_with_its_length(tiny_model, tmp_path):
    """One run from end to end: the card says that the judge reasons, and how long; what it did not finish is counted."""
    from rm_gallery.core.evaluate.model import evaluate_data
    from rm_gallery.core.evaluate.table import sentences
    from rm_gallery.core.judge.subject import Candidate
    from rm_gallery.core.train.local import train_local

    for name, number in (("train", 6), ("val", 4)):
        rows = [row(i, "Because it is so.") for i in range(number)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    config = configured(
        tiny_model,
        prompt={"think": True, "instruction": "Rate."},
        data={"train": str(tmp_path / "train.jsonl"), "val": str(tmp_path / "val.jsonl")},
        rollout={"max_response_length": 70},
        train={
            "batch_size": 3,
            "mini_batch_size": 3,
            "max_steps": 2,
            "eval_every": None,
            "learning_rate": 1e-3,
        },
    )
    result = train_local(config, path=tmp_path / "run")
    assert result.train_rows == 6
    lines = [json.loads(line) for line in (result.run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["parse_rate"] for line in lines if line["split"] == "val"] == [0.0, 0.0]
    found = evaluate_data(Candidate(str(result.run.latest)), tmp_path / "val.jsonl", tmp_path / "out")
    assert found.predictions is not None
    texts = found.predictions.text
    assert all(len(text.encode(errors="replace")) <= 70 * 3 for text in texts)
    [said] = [line for line in sentences(found) if line.startswith("Invalid outputs")]
    assert said.startswith("Invalid outputs: 4 of 4 (100.0%): 4 un")


def test_verls_reward_is_told_what_the_template_began(tmp_path):
    """verl hands a reward what the model wrote; what stood before it comes with the row, and with the dump."""
    from rm_gallery.core.train import BaseTrainDataset
    from rm_gallery.core.train.verl.dumps import of_rollouts, read_rows
    from tests.examples.files import build

    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row(i, None, label=3)) + "\n" for i in range(3)))
    task = PointwiseTask()
    cut_off = "Perhaps <score>3</score>, or"
    for template, parsed in (("plain", 1), ("opens", 0)):
        item = build(BaseTrainDataset, file, tokenizer_of(template), task="pointwise")[0]
        truth = item["reward_model"]["ground_truth"]
        result = task.compute_score("ours", cut_off, truth, item["extra_info"])
        assert (result["parsed"], result["acc"]) == (parsed, parsed)
        prompt = tokenizer_of(template).apply_chat_template(
            item["raw_prompt"], tokenize=False, add_generation_prompt=True
        )
        dump = tmp_path / f"{template}.jsonl"
        dump.write_text(
            json.dumps({"input": prompt, "output": cut_off, "gts": truth, "score": parsed}) + "\n"
        )
        assert of_rollouts(read_rows(dump), task)["parse_rate"] == parsed


def test_verls_check_of_the_rows_knows_the_dimensions(tmp_path):
    from rm_gallery.core.train import BaseTrainDataset
    from tests.examples.files import build

    rows = [
        {**row(i, None), "clarity": 1, "output": {"content": "a", "label": {"clarity": 1}}} for i in range(3)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    made = build(BaseTrainDataset, file, task="multi_dimension", dimensions={"clarity": 1})
    assert made[0]["reward_model"]["ground_truth"] == {"clarity": 1}


def test_the_older_shapes_metadata_has_the_reasoning():
    assert reasoning_of({"metadata": json.dumps({"why": " so "})}, "why") == "so"
    assert reasoning_of({"metadata": None}, "why") == ""
