"""The order of prompts: a permutation an epoch, whole batches, the same for the same seed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.train.sampling import prompt_order


@given(rows=st.integers(1, 60), batch=st.integers(1, 12), epochs=st.integers(1, 3), seed=st.integers(0, 9))
def test_every_epoch_is_a_permutation_in_whole_batches(rows, batch, epochs, seed):
    if batch > rows:
        with pytest.raises(ConfigError, match=f"train.batch_size to {rows}"):
            prompt_order(range(rows), batch, epochs=epochs, max_steps=None, seed=seed)
        return
    order = prompt_order(range(rows), batch, epochs=epochs, max_steps=None, seed=seed)
    per_epoch = rows // batch * batch
    assert len(order) == per_epoch * epochs
    for epoch in range(epochs):
        part = order[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert len(set(part)) == len(part)
    assert order == prompt_order(range(rows), batch, epochs=epochs, max_steps=None, seed=seed)


def test_a_longer_run_begins_like_a_shorter_one():
    """So that a run that is resumed with more steps goes on where it was."""
    short = prompt_order(range(50), 8, epochs=1, max_steps=5, seed=3)
    assert prompt_order(range(50), 8, epochs=1, max_steps=14, seed=3)[: len(short)] == short


def test_seeds_and_epochs_differ():
    one, two = (prompt_order(range(40), 40, epochs=1, max_steps=None, seed=s) for s in (0, 1))
    assert one != two
    both = prompt_order(range(40), 40, epochs=2, max_steps=None, seed=0)
    assert both[:40] != both[40:]


def test_a_fraction_of_an_epoch():
    assert len(prompt_order(range(100), 10, epochs=0.5, max_steps=None, seed=0)) == 50


@given(groups=st.lists(st.integers(0, 8), min_size=5, max_size=60), seed=st.integers(0, 9))
def test_rows_of_a_group_stay_next_to_each_other(groups, seed):
    order = prompt_order(groups, len(groups), epochs=1, max_steps=None, seed=seed)
    seen = [groups[row] for row in order]
    changes = sum(a != b for a, b in pairwise(seen))
    assert changes == len(set(groups)) - 1
