"""Subclasses of `BaseTrainDataset` as the guides write them, with hooks of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from examples.train.pairwise.dataset import HelpfulnessPairwiseTrainDataset
from examples.train.pointwise.dataset import PointwiseTrainDataset
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.templates import BasePromptTemplate
from rm_gallery.gallery.rm.alignment.base import BaseHelpfulnessPointWiseReward
from tests.examples.files import build, write
from tests.tasks.rows import older_shape, sample
from tutorials.cookbooks.training_reward_model.base import BaseTrainDataset


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


def test_without_a_task_the_rows_say_what_is_asked(ratings: Path, pairs: Path) -> None:
    assert build(BaseTrainDataset, ratings)[0] == build(PointwiseTrainDataset, ratings)[0]
    assert build(BaseTrainDataset, pairs)[0] == build(HelpfulnessPairwiseTrainDataset, pairs)[0]
    named = build(BaseTrainDataset, ratings, task="pointwise", instruction="Judge.")
    assert named[0]["raw_prompt"][0]["content"].startswith("Judge.")
    with pytest.raises(ConfigError, match="Did you mean 'pointwise'"):
        build(BaseTrainDataset, ratings, task="pointwize")
