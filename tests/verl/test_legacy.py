"""The table of older keys: as data, and against the verl that is installed."""

from __future__ import annotations

import importlib.util

import pytest

from rm_gallery.core.errors import ConfigError, MissingDependency
from rm_gallery.core.train.verl import installed
from rm_gallery.core.train.verl.legacy import IGNORED, NOTES, REFUSED, VALUES, find, successors

needs_verl = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("verl", "hydra")),
    reason="needs verl 0.9.1 and hydra: pip install 'rm-gallery[verl]'",
)
TABLE = (*IGNORED, *REFUSED)

# a key below each section that the table names as a whole
BELOW = {
    "custom_reward_function.reward_kwargs.*": "k",
    "reward_model.reward_kwargs.*": "overlong_buffer_cfg.enable",
    "reward_model.rollout.*": "tensor_model_parallel_size",
    "sandbox_fusion.*": "url",
    "algorithm.pf_ppo.*": "weight_pow",
    "ray_init.*": "num_cpus",
    "reward_model.sandbox_fusion.*": "max_concurrent",
    "reward_model.*": "strategy",
    "critic.model.fsdp_config.*": "param_offload",
    "actor_rollout_ref.profiler.*": "all_ranks",
    "trainer.controller_nsight_options.*": "trace",
    "trainer.worker_nsight_options.*": "kill",
    "trainer.npu_profile.*": "options.level",
    "data.sampler.*": "class_path",
    "data.datagen.*": "name",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.*": "swap_space",
    "actor_rollout_ref.rollout.engine_kwargs.sglang.*": "attention_backend",
}
KEYS = {entry.old.replace("*", BELOW.get(entry.old, "")): entry for entry in TABLE}


# -- the table alone


def test_every_key_stands_once_and_has_a_reason():
    assert len({entry.old for entry in TABLE}) == len(TABLE)
    for entry in TABLE:
        assert entry.reason, entry.old
        assert not entry.reason.endswith("."), entry.old


def test_a_section_leads_to_sections_and_a_key_to_keys():
    for entry in TABLE:
        assert all(new.endswith(".*") == entry.old.endswith(".*") for new in entry.new), entry.old


def test_every_key_is_found_by_its_own_entry():
    assert set(BELOW) == {entry.old for entry in TABLE if entry.old.endswith("*")}
    for key, entry in KEYS.items():
        assert find(key) is entry


def test_no_replacement_is_itself_in_the_table():
    """Following the advice once is enough; only what works with a + leads to itself."""
    for key, entry in KEYS.items():
        for new in successors(entry, key):
            found = find(new.lstrip("+"))
            assert found is None or (found.plus and new == f"+{key}"), (key, new)


def test_a_section_keeps_what_stood_below_it():
    entry = find("ray_init.runtime_env.env_vars.A")
    assert entry is not None
    assert successors(entry, "ray_init.runtime_env.env_vars.A") == [
        "+ray_kwargs.ray_init.runtime_env.env_vars.A"
    ]


@pytest.mark.parametrize(
    "key", ["data.train_batch_size", "reward.num_workers", "ray_kwargs.ray_init.num_cpus", "x"]
)
def test_a_key_of_today_is_not_in_the_table(key: str):
    assert find(key) is None


# -- against verl


@pytest.fixture(scope="module")
def base():
    from rm_gallery.core.train.verl.check import compose

    return compose([])


@needs_verl
def test_verl_lists_what_is_ignored_and_not_what_is_refused(base):
    from rm_gallery.core.train.verl.keys import place_of

    for key, entry in KEYS.items():
        listed = place_of(base, key).missing is None
        if entry.value == "per_gpu":  # listed, and its workers stop at it
            assert listed, key
        elif ".reward_kwargs." in key:  # accepted with a + alone
            assert not listed, key
        else:
            assert listed != entry.refused, key
    for key in (*NOTES, *(value.key for value in VALUES)):
        assert place_of(base, key).missing is None, key


@needs_verl
def test_every_replacement_is_a_key_of_verl():
    from rm_gallery.core.train.verl.check import compose

    words = {new for key, entry in KEYS.items() for new in successors(entry, key)}
    listed = compose([])
    from rm_gallery.core.train.verl.keys import place_of

    known = {word for word in words if place_of(listed, word.lstrip("+")).missing is None}
    assert all(word.startswith("+") for word in words - known)
    compose([f"{word.lstrip('+') if word in known else word}=1" for word in sorted(words)])


@needs_verl
def test_all_the_older_keys_at_once_become_a_command_in_which_every_key_counts():
    from rm_gallery.core.train.verl.check import explain

    first = explain([f"{'+' if '.reward_kwargs.' in key else ''}{key}=8" for key in KEYS])
    assert {finding.status for finding in first.findings} == {"ignored", "renamed", "removed"}
    second = explain(first.corrected)
    assert [finding for finding in second.findings if finding.status != "ok"] == []
    assert second.corrected == first.corrected
    assert second.problems == first.problems


@needs_verl
def test_the_classes_of_verl_are_read_right(base):
    """Whatever verl itself lists in a section is a field of the section's class."""
    from omegaconf import DictConfig

    from rm_gallery.core.train.verl.keys import fields_of

    def sections(node: DictConfig):
        if "_target_" in node:
            yield node
        for name in node:
            if not isinstance(below := node._get_node(name), DictConfig) or below._is_interpolation():
                continue
            yield from sections(below)

    for name in ("actor", "rollout", "model"):
        for section in sections(base.actor_rollout_ref[name]):
            fields = fields_of(section._target_)
            assert fields is not None, section._target_
            assert set(section) <= fields, section._target_


# -- which verl


def test_without_verl_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"needs verl, .* pip install 'rm-gallery\[verl\]'"):
        installed.require_verl()
    with pytest.raises(MissingDependency):
        installed.config_folder()


@pytest.mark.parametrize("version", ["0.4.0", "0.9.10", "0.10.0"])
def test_another_verl_is_named(monkeypatch, version: str):
    monkeypatch.setattr(installed, "require", lambda *_: None)
    monkeypatch.setattr(installed.metadata, "version", lambda _: version)
    with pytest.raises(ConfigError, match=rf"verl {version} is installed and this needs verl 0\.9\.1"):
        installed.require_verl()


def test_a_build_of_the_right_version_will_do(monkeypatch):
    monkeypatch.setattr(installed, "require", lambda *_: None)
    monkeypatch.setattr(installed.metadata, "version", lambda _: "0.9.1+cu130")
    installed.require_verl()
