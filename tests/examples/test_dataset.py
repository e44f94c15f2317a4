"""`BaseTrainDataset` as verl builds and reads it."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch.utils.data import Dataset

import rm_gallery.core.train
from examples.train.pairwise.dataset import HelpfulnessPairwiseTrainDataset
from examples.train.pointwise.dataset import HelpfulnessPointwiseTrainDataset, PointwiseTrainDataset
from examples.train.pointwise.reward_fn import compute_score
from rm_gallery.core.errors import ConfigError, DataError
from tests.data.helpers import convert
from tests.examples.files import THINKS, TOKENIZER, build, write
from tests.tasks.rows import older_shape, pair, sample


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


def test_a_loader_may_send_the_dataset_to_its_workers(ratings: Path) -> None:
    dataset = build(PointwiseTrainDataset, ratings)
    assert pickle.loads(pickle.dumps(dataset))[4] == dataset[4]  # noqa: S301 - made here


def test_several_files_are_one_dataset(ratings: Path) -> None:
    assert len(build(PointwiseTrainDataset, [ratings, str(ratings)])) == 20


def test_a_bad_label_is_refused_when_the_dataset_is_built(tmp_path: Path) -> None:
    rows = [sample(unique_id=f"r{n}", labels={"helpfulness": n}).to_row() for n in (3, 4, 7, 8)]
    path = write(tmp_path / "bad.parquet", rows)
    with pytest.raises(DataError, match=r"2 of 4 rows.*the first is .*bad.parquet, row 3: r7: .* is 7"):
        build(PointwiseTrainDataset, path)
    for row in (sample(labels={"helpfulness": None}).to_row(), sample(labels={}).to_row()):
        path = write(tmp_path / "none.jsonl", [row])
        with pytest.raises(DataError, match=r"1 of 1 rows cannot be trained on.*no label 'helpfulness'"):
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
    quiet, template_says = {"enable_thinking": False}, {"enable_thinking": True}
    other = build(HelpfulnessPairwiseTrainDataset, pairs, THINKS, apply_chat_template_kwargs=quiet)
    reasons = build(
        HelpfulnessPairwiseTrainDataset,
        pairs,
        THINKS,
        reasoning_model=True,
        apply_chat_template_kwargs=template_says,
    )
    assert "<think>your reasoning</think>" in other[0]["raw_prompt"][0]["content"]
    assert prompts(other)[0].endswith("<think></think>")
    assert "<think>" not in prompts(reasons)[0]
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


def test_a_prompt_that_the_engine_would_render_otherwise_is_refused(ratings: Path) -> None:
    build(PointwiseTrainDataset, ratings, TOKENIZER)
    build(PointwiseTrainDataset, ratings, THINKS, apply_chat_template_kwargs={"enable_thinking": False})
    with pytest.raises(ConfigError, match=r"\+data.apply_chat_template_kwargs.enable_thinking=false"):
        build(PointwiseTrainDataset, ratings, THINKS)


class Shouts(PointwiseTrainDataset):
    """A template of its own, which the engine does not know of."""

    def _apply_chat_template(self, messages: list[dict[str, str]]) -> str:
        return super()._apply_chat_template(messages).replace("help", "HELP")


class Plain(PointwiseTrainDataset):
    """As in the guides: another call, the same text."""

    def _apply_chat_template(self, messages: list[dict[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_a_template_of_ones_own_must_render_what_the_engine_will(ratings: Path) -> None:
    assert len(build(Plain, ratings))
    with pytest.raises(ConfigError, match=r"Shouts\S* renders another prompt"):
        build(Shouts, ratings)


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
