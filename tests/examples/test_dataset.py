"""`BaseTrainDataset` as verl builds and reads it, and subclasses with hooks of their own."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.utils.data import Dataset

import rm_gallery.core.train
from examples.train.pairwise.dataset import HelpfulnessPairwiseTrainDataset
from examples.train.pointwise.dataset import HelpfulnessPointwiseTrainDataset, PointwiseTrainDataset
from examples.train.pointwise.reward_fn import compute_score
from rm_gallery.core.data.samples import Message
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.templates import BasePromptTemplate
from rm_gallery.core.train import BaseTrainDataset
from rm_gallery.gallery.rm.alignment.base import BaseHelpfulnessPointWiseReward
from tests.data.helpers import convert
from tests.tasks.rows import older_shape, pair, sample
from tests.tiny import CHAT_TEMPLATE, build_tokenizer

TOKENIZER = build_tokenizer()
THINKS = build_tokenizer()  # as Qwen3's: an empty reasoning is written where thinking is off
THINKS.chat_template = CHAT_TEMPLATE + (
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think></think>{% endif %}"
)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    rows = [
        sample(
            input=(Message("user", "word " * n),), labels={"helpfulness": n % 5}, unique_id=f"r{n}"
        ).to_row()
        for n in range(1, 11)
    ]
    return write(tmp_path / "ratings.parquet", rows)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.parquet", [pair().to_row(), pair(unique_id="p2").swap().to_row()])


def build(cls: type[BaseTrainDataset], files: Any, tokenizer: Any = TOKENIZER, **config: Any) -> Any:
    limit = config.pop("max_samples", -1)
    return cls(data_files=files, tokenizer=tokenizer, processor=None, config=config, max_samples=limit)


def test_an_item_is_what_verl_reads(ratings: Path) -> None:
    dataset = build(PointwiseTrainDataset, [str(ratings)], max_prompt_length=1000)
    assert isinstance(dataset, Dataset)
    assert len(dataset) == 10
    item = dataset[2]
    assert set(item) == {"raw_prompt", "index", "data_source", "reward_model", "extra_info"}
    assert [message["role"] for message in item["raw_prompt"]] == ["user"]
    assert "word word word" in item["raw_prompt"][0]["content"]
    assert (item["index"], item["data_source"]) == (2, "unknown")
    assert item["reward_model"] == {"ground_truth": {"helpfulness": 3}}
    assert item["extra_info"]["unique_id"] == "r3"
    assert item["extra_info"]["labels"] == {"helpfulness": 3}
    scored = compute_score(
        item["data_source"],
        "<score>3</score>",
        item["reward_model"]["ground_truth"],
        item["extra_info"],
    )
    assert scored["score"] == 1.0


def test_a_pair_carries_its_strength_and_its_truth_twice(pairs: Path) -> None:
    from examples.train.pairwise.reward_fn import compute_score

    dataset = build(HelpfulnessPairwiseTrainDataset, pairs)
    truths = [dataset[i]["reward_model"]["ground_truth"] for i in range(2)]
    assert truths == ["A", "B"]
    for truth in ("B", None):
        scored = compute_score("t", "<preference>B</preference>", truth, dataset[1]["extra_info"])
        assert (scored["score"], scored["preference_strength"]) == (1.0, 2)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_both_shapes_give_the_same_items(tmp_path: Path, suffix: str) -> None:
    for cls, row in (
        (HelpfulnessPointwiseTrainDataset, sample().to_row()),
        (HelpfulnessPairwiseTrainDataset, pair().to_row()),
    ):
        newer = build(cls, write(tmp_path / f"newer{suffix}", [row]))
        older = build(cls, write(tmp_path / f"older{suffix}", [older_shape(row)]))
        assert older[0] == newer[0]


def test_overlong_prompts_are_left_out_and_counted(ratings: Path, caplog: pytest.LogCaptureFixture) -> None:
    length = [len(TOKENIZER(t)["input_ids"]) for t in prompts(build(PointwiseTrainDataset, ratings))]
    with caplog.at_level(logging.WARNING):
        dataset = build(PointwiseTrainDataset, ratings, max_prompt_length=length[6])
    assert (len(dataset), dataset.overlong) == (7, 3)
    assert "3 of 10 prompts" in caplog.text
    with pytest.raises(DataError, match=f"all 10 prompts.*=5 tokens.*the shortest has {min(length)}"):
        build(PointwiseTrainDataset, ratings, max_prompt_length=5)


def prompts(dataset: Any) -> list[str]:
    return [dataset._apply_chat_template(dataset[i]["raw_prompt"]) for i in range(len(dataset))]


def test_samples_are_drawn_with_the_seed(ratings: Path) -> None:
    def ids(**config: Any) -> list[str]:
        dataset = build(PointwiseTrainDataset, ratings, max_samples=4, **config)
        return [item["extra_info"]["unique_id"] for item in dataset]

    assert len(ids()) == 4
    assert ids() == ids(seed=0) == sorted(ids(), key=lambda name: int(name[1:]))
    assert ids(seed=1) != ids()


def test_several_files_are_one_dataset(ratings: Path) -> None:
    assert len(build(PointwiseTrainDataset, [ratings, str(ratings)])) == 20


def test_a_bad_label_is_refused_when_the_dataset_is_built(tmp_path: Path) -> None:
    rows = [sample(unique_id=f"r{n}", labels={"helpfulness": n}).to_row() for n in (3, 4, 7, 8)]
    path = write(tmp_path / "bad.parquet", rows)
    with pytest.raises(DataError, match=r"2 of 4 rows.*the first is .*bad.parquet, row 3: r7: .* is 7"):
        build(PointwiseTrainDataset, path)
    for row in (sample(labels={"helpfulness": None}).to_row(), sample(labels={}).to_row()):
        path = write(tmp_path / "none.jsonl", [row])
        with pytest.raises(DataError, match=r"1 of 1 rows cannot be trained on.*None"):
            build(PointwiseTrainDataset, path)
    with pytest.raises(DataError, match="needs two responses"):
        build(HelpfulnessPairwiseTrainDataset, write(tmp_path / "one.jsonl", [sample().to_row()]))


def test_no_rows_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        build(PointwiseTrainDataset, write(tmp_path / "empty.jsonl", []))
    with pytest.raises(DataError, match="names no file"):
        build(PointwiseTrainDataset, [])
    with pytest.raises(DataError, match="there is no file"):
        build(PointwiseTrainDataset, tmp_path / "absent.parquet")


# -- one setting for reasoning models


def test_a_reasoning_model_is_asked_to_think_by_its_template_only(pairs: Path) -> None:
    other = build(HelpfulnessPairwiseTrainDataset, pairs, THINKS)
    reasons = build(HelpfulnessPairwiseTrainDataset, pairs, THINKS, reasoning_model=True)
    assert "<think>your reasoning</think>" in other[0]["raw_prompt"][0]["content"]
    assert prompts(other)[0].endswith("<think></think>")
    assert "<think>" not in prompts(reasons)[0]
    template_says = {"enable_thinking": True}
    implied = build(HelpfulnessPairwiseTrainDataset, pairs, THINKS, apply_chat_template_kwargs=template_says)
    assert implied.reasoning_model
    assert prompts(implied) == prompts(reasons)
    with pytest.raises(ConfigError, match="set them alike"):
        build(PointwiseTrainDataset, pairs, reasoning_model=False, apply_chat_template_kwargs=template_says)


def test_the_prompt_asks_for_reasoning_where_the_template_has_a_field_for_it(
    ratings: Path, pairs: Path
) -> None:
    assert "<think>" not in prompts(build(PointwiseTrainDataset, ratings))[0]
    assert "<think>" in prompts(build(PointwiseTrainDataset, ratings, think=True))[0]
    assert "<think>" not in prompts(build(HelpfulnessPairwiseTrainDataset, pairs, think=False))[0]
    quiet = build(PointwiseTrainDataset, ratings, think=True, reasoning_model=True)
    assert "<think>" not in prompts(quiet)[0]


def test_a_prompt_that_the_engine_would_render_otherwise_is_announced(
    ratings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(PointwiseTrainDataset, ratings, TOKENIZER)
    build(PointwiseTrainDataset, ratings, THINKS, apply_chat_template_kwargs={"enable_thinking": False})
    assert not caplog.records
    build(PointwiseTrainDataset, ratings, THINKS)
    assert "+data.apply_chat_template_kwargs.enable_thinking=False" in caplog.text


# -- subclasses


class OwnHooks(BaseTrainDataset):
    """The "Custom Dataset Class" of the pointwise guide: every hook is its own, and there is no task."""

    def _build_messages(self, example: dict[str, Any]) -> list[dict[str, str]]:
        query = example["input"][0]["content"]
        output = example["output"]
        response = output[0].get("content", "") if isinstance(output, list) else output.get("content", "")
        return [{"role": "user", "content": f"Query: {query}\n\nResponse: {response}\n\n<score>X</score>"}]

    def _apply_chat_template(self, messages: list[dict[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _extract_ground_truth(self, row_dict: dict[str, Any]) -> dict[str, int]:
        output = row_dict.get("output", [])
        label = output[0].get("label", {}) if isinstance(output, list) else output.get("label", {})
        return {"helpfulness": label.get("helpfulness", 0)}

    def _get_data_source(self, row_dict: dict[str, Any]) -> str:
        return row_dict.get("data_source", "unknown")


def test_the_guides_subclass_works_as_written(ratings: Path, tmp_path: Path) -> None:
    dataset = build(OwnHooks, str(ratings), max_prompt_length=400)
    assert dataset[3]["raw_prompt"][0]["content"].startswith("Query: word word")
    assert dataset[3]["reward_model"]["ground_truth"] == {"helpfulness": 4}
    older = build(OwnHooks, write(tmp_path / "older.jsonl", [older_shape(sample().to_row())]))
    assert older[0]["reward_model"]["ground_truth"] == {"helpfulness": 3}
    rows = [sample().to_row(), sample(labels={"helpfulness": None}, unique_id="r9").to_row()]
    with pytest.raises(DataError, match="row 2: r9: the ground truth is missing"):
        build(OwnHooks, write(tmp_path / "missing.parquet", rows))


class FieldsOnly(BasePromptTemplate):
    score: int


class CustomTrainDataset(BaseTrainDataset):
    """The "Custom Training Dataset" of the general guide."""

    task = "pointwise"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.reward_module = BaseHelpfulnessPointWiseReward(
            name="custom_reward", template=FieldsOnly, examples=self._get_examples(), llm=None
        )
        super().__init__(*args, **kwargs)

    def _get_examples(self) -> list[Any]:
        return [sample(), "A text of one's own."]

    def _build_messages(self, example: dict[str, Any]) -> list[dict[str, str]]:
        result = self.reward_module.format(sample=example)
        return [{"role": "user", "content": result}]


def test_a_reward_module_may_be_made_before_the_dataset(ratings: Path) -> None:
    text = build(CustomTrainDataset, ratings)[0]["raw_prompt"][0]["content"]
    assert text.startswith("How helpful is the response")
    assert text.endswith("<score>3</score>\n\n## Example 2\nA text of one's own.")


def test_examples_may_be_asked_for_before_the_dataset_is_built() -> None:
    assert BaseTrainDataset._get_examples(object.__new__(BaseTrainDataset)) == []


def test_without_task_or_hooks_the_dataset_says_what_to_do(ratings: Path) -> None:
    with pytest.raises(ConfigError, match="has no task: set `task`, or define"):
        build(BaseTrainDataset, ratings)
    assert len(build(BaseTrainDataset, ratings, task="pointwise", instruction="Judge.")) == 10
    with pytest.raises(ConfigError, match="Did you mean 'pointwise'"):
        build(BaseTrainDataset, ratings, task="pointwize")


def test_importing_the_package_brings_in_no_torch() -> None:
    code = "import sys, rm_gallery.core.train as t; assert 'torch' not in sys.modules; t.BaseTrainDataset; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'BaseTrainDatase'"):
        rm_gallery.core.train.BaseTrainDatase  # noqa: B018


def test_what_the_converters_export_is_what_the_recipes_read(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {n}?", "response": f"Answer {n}.", "helpfulness": n % 5} for n in range(20)]
    convert(write(tmp_path / "ratings.jsonl", rows), tmp_path / "out")
    dataset = build(PointwiseTrainDataset, tmp_path / "out/data_train.parquet", max_prompt_length=1000)
    labels = pd.read_parquet(tmp_path / "out/data_train.parquet")["helpfulness"].value_counts()
    assert labels.sum() == len(dataset)
    assert dataset[0]["data_source"] == "helpsteer2"

    compared = [
        {
            "prompt": f"Q {n}?",
            "response_1": "One.",
            "response_2": f"Two {n}.",
            "preference_strength": n % 7 - 3,
        }
        for n in range(20)
    ]
    convert(write(tmp_path / "pairs.jsonl", compared), tmp_path / "pairs", "helpsteer2_pairwise")
    dataset = build(HelpfulnessPairwiseTrainDataset, tmp_path / "pairs/data_test.parquet")
    truths = [item["reward_model"]["ground_truth"] for item in dataset]
    assert truths.count("A") == truths.count("B"), "each pair stands there in both orders"
    assert all(item["extra_info"]["metadata"]["group"] for item in dataset)
