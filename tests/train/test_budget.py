"""`train.micro_batch_tokens`: as many prompts a pass as never have more tokens than that."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.forest import plant
from rm_gallery.core.models.prompts import distinct
from rm_gallery.core.models.tree import Tree
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import train_local
from rm_gallery.core.train.local.bradley_terry import BradleyTerryJob
from rm_gallery.core.train.local.exact import ExactJob
from rm_gallery.core.train.local.trainers import within_budget
from rm_gallery.core.train.local.verdicts import VerdictJob, tokens_with_answers
from rm_gallery.core.train.log import read_log
from tests.train.exact_parts import settings_for
from tests.train.scalar_runs import comparable, write_pairs

pytestmark = pytest.mark.usefixtures("one_thread")


def asking(budget: int, mini: int = 8, **sections):
    train = {"batch_size": 2 * mini, "mini_batch_size": mini, "micro_batch_tokens": budget}
    values = {"task": "pointwise", "model": {"path": "m"}, "data": {"train": "rows.jsonl"}, "train": train}
    return check_config({**values, **sections})


@given(
    st.sampled_from([1, 2, 6, 8, 12]),
    st.lists(st.integers(1, 100), min_size=24, max_size=24),
    st.integers(1, 900),
    st.booleans(),
)
def test_no_pass_is_over_the_budget_and_no_larger_size_would_do(mini, loads, budget, padded):
    def heaviest(size):
        passes = [loads[at : at + size] for at in range(0, 24, size)]
        return max(size * max(each) if padded else sum(each) for each in passes)

    config, [said] = within_budget(asking(budget, mini), range(24), loads, padded=padded)
    size = config.micro_batch_size
    assert config.train.micro_batch_tokens is None
    assert heaviest(size) <= budget or size == 1
    assert all(heaviest(n) > budget for n in range(size + 1, mini + 1) if mini % n == 0)
    assert said.startswith(f"a pass takes {size} prompt")
    assert ("over train.micro_batch_tokens" in said) == (max(loads) > budget)


def test_each_process_has_its_share(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    config, _ = within_budget(asking(10**6), range(16), [1] * 16, padded=False)
    assert config.micro_batch_size == 2


def test_without_a_budget_nothing_changes():
    config = check_config({"model": {"path": "m"}, "data": {"train": "rows.jsonl"}, "task": "pointwise"})
    assert within_budget(config, range(96), [], padded=False) == (config, [])


def test_a_size_and_a_budget_are_one_too_many():
    train = {"micro_batch_size": 2, "micro_batch_tokens": 100}
    with pytest.raises(ConfigError, match=r"micro_batch_size \(2\) and train\.micro_batch_tokens \(100\)"):
        check_config(
            {"task": "pointwise", "model": {"path": "m"}, "data": {"train": "r.jsonl"}, "train": train}
        )


def test_what_a_row_counts_for_by_method():
    tree = Tree.of([(1, 2, 3), (1, 2, 4)])  # reads two tokens
    rollout = {"n": 3, "max_response_length": 10}
    grpo = asking(1, rollout=rollout)
    assert tokens_with_answers(grpo, [100, 7], [], tree) == [130, 37]
    apart = asking(1, rollout=rollout, model={"path": "m", "shared_prefix": False})
    assert tokens_with_answers(apart, [100, 7], [], tree) == [330, 51]
    exact = asking(1, rollout=rollout, method="exact")
    assert tokens_with_answers(exact, [100, 7], [], tree) == [102, 9]
    reasoning = asking(1, rollout=rollout, method="exact", prompt={"think": True})
    assert tokens_with_answers(reasoning, [100, 7], [], tree) == [136, 43]


def test_the_forests_of_a_run_stay_within_it(tiny_model, tmp_path):
    settings = settings_for(tiny_model, tmp_path)
    job = ExactJob.prepare(check_config(settings))
    tree = job.asker.verdict_tree(job.task)

    def forests(job):
        trainer = job.trainer(_run(job, tmp_path), str(tiny_model))
        size = job.config.micro_batch_size
        rows = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
        for at in range(0, len(rows), size):
            batch = trainer.data_collator(rows[at : at + size])
            prompts, _ = distinct(batch["input_ids"], batch["attention_mask"])
            yield len(plant(prompts, tree).ids)

    whole = max(forests(job))
    settings["train"]["micro_batch_tokens"] = budget = int(0.7 * whole)
    job = ExactJob.prepare(check_config(settings))
    assert 1 <= job.config.micro_batch_size < 8
    assert max(forests(job)) <= budget
    [said] = [note for note in job.notes if note.startswith("a pass takes")]
    assert tokens_in(said) <= budget


def tokens_in(said):
    return int(re.findall(r"([\d,]+) tokens", said)[0].replace(",", ""))


def _run(job, tmp_path):
    from rm_gallery.core.train.run_folder import RunFolder

    return RunFolder.create(job.config, tmp_path / f"run-{job.config.micro_batch_size}")


@pytest.mark.parametrize("method", ["grpo", "sft", "exact"])
def test_a_run_is_that_of_the_size_which_fits(tiny_model, tmp_path, method):
    settings = settings_for(tiny_model, tmp_path, method=method, train={"max_steps": 2}, rollout={"n": 2})
    settings["train"]["micro_batch_tokens"] = 10**9
    [whole] = [note for note in VerdictJob.prepare(check_config(settings)).notes if "a pass takes 8" in note]
    settings["train"]["micro_batch_tokens"] = int(0.6 * tokens_in(whole))
    size = VerdictJob.prepare(check_config(settings)).config.micro_batch_size
    assert 1 < size < 8
    by_budget = train_local(check_config(settings), path=tmp_path / "budget").run
    del settings["train"]["micro_batch_tokens"]
    settings["train"]["micro_batch_size"] = size
    by_size = train_local(check_config(settings), path=tmp_path / "size").run
    one, other = (
        [comparable(record) for record in read_log(run.path / "metrics.jsonl")]
        for run in (by_budget, by_size)
    )
    assert one == other


@pytest.mark.parametrize("pads", [True, False], ids=["padded", "as they are"])
def test_pairs_count_with_their_padding_where_there_is_one(tiny_model, tmp_path, pads):
    settings = {
        "method": "bradley_terry",
        "model": {"path": str(tiny_model), "dtype": "float32", "shared_prefix": not pads},
        "data": {"train": str(write_pairs(tmp_path / "pairs.jsonl", 16))},
        "train": {"batch_size": 8, "mini_batch_size": 8, "max_steps": 2, "micro_batch_tokens": 10**6},
    }
    job = BradleyTerryJob.prepare(check_config(settings))
    longest = max(len(text["input_ids"]) for each in job.texts for text in each)
    assert job.config.micro_batch_size == 8
    settings["train"]["micro_batch_tokens"] = 4 * longest
    job = BradleyTerryJob.prepare(check_config(settings))
    size = job.config.micro_batch_size

    def heaviest(size: int) -> int:
        found = 0
        for at in range(0, len(job.order), size):
            rows = job.order[at : at + size]
            lengths = [len(text["input_ids"]) for i in rows for text in job.texts[i]]
            found = max(found, len(lengths) * max(lengths) if pads else sum(lengths))
        return found

    assert size in (2, 4)
    assert heaviest(size) <= 4 * longest < heaviest(2 * size), "as many as fit"
