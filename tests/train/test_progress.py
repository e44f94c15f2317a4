"""What a run says of itself in the terminal."""

from __future__ import annotations

import pytest

from rm_gallery.core.train.progress import beside_a_constant, figures


def val(reward: float | None, constant: float | None = 0.75) -> dict:
    return {"step": 1, "split": "val", "reward/mean": reward, "reward/best_constant": constant}


def test_a_line_names_the_constant_beside_the_reward():
    assert figures({**val(0.5), "accuracy": 0.25}) == "reward 0.500  best_constant 0.750  accuracy 0.250"


@pytest.mark.parametrize(
    ("reward", "end"),
    [
        (0.8, "would earn 0.750 at most. rmg eval says whether the difference can be chance."),
        (0.75, "would earn 0.750, so nothing shows yet that it reads what it judges."),
        (0.5, "would earn 0.750, so nothing shows yet that it reads what it judges."),
    ],
    ids=["above", "as much, which a judge that always says the same earns", "below"],
)
def test_the_last_held_out_reward_is_set_beside_a_constants(reward, end):
    records = [val(0.9), {"step": 2, "split": "train", "reward/mean": 0.1}, val(reward)]
    said = beside_a_constant(records)
    assert said is not None
    assert said.startswith(f"Held out, its mean reward is {reward:.3f};")
    assert said.endswith(end)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"step": 1, "split": "train", "reward/mean": 0.1}],
        [val(0.5, None)],
        [{"step": 0, "split": "val"}],
    ],
    ids=["no figures", "nothing held out", "from before there was a constant", "a scalar model's"],
)
def test_without_the_figures_nothing_is_said(records):
    assert beside_a_constant(records) is None
