"""Reward functions by hand, and rewards of one's own."""

from __future__ import annotations

import doctest
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.rewards import RewardConfig, functions, load_object
from rm_gallery.core.tasks import PointwiseTask

scores = st.integers(0, 4)


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(functions).failed == 0


@given(scores, scores, st.floats(0.1, 10))
def test_decaying_rewards_fall_with_the_error_and_do_not_mind_its_sign(a: int, b: int, k: float) -> None:
    for reward in (functions.linear_decay, lambda p, t: functions.exp_decay(p, t, k=k)):
        assert reward(a, b) == reward(b, a) <= 1
        assert (reward(a, b) == 1) == (a == b)
        if abs(a - b) < 4:
            further = max(0, min(a, b)), min(a, b) + abs(a - b) + 1
            assert reward(*further) < reward(a, b)


@pytest.mark.parametrize(
    ("config", "verdict", "truth", "reward"),
    [
        (RewardConfig(name="exp_decay"), 1, 3, math.exp(-1)),
        (RewardConfig(name="exp_decay", k=1, max_error=8), 1, 3, math.exp(-0.25)),
        (RewardConfig(name="linear"), 1, 4, 0.25),
        (RewardConfig(name="linear", max_error=2), 0, 4, 0.0),
        (RewardConfig(name="exact"), 1, 4, 0.0),
        (RewardConfig(name="preference", tie=0.3), "tie", "A", 0.3),
        (RewardConfig(name="preference", tie=0.3), "A", "tie", 0.3),
        (RewardConfig(name="preference", tie=0.3), "A", "B", 0.0),
    ],
)
def test_rewards_by_hand(config: RewardConfig, verdict: object, truth: object, reward: float) -> None:
    assert config.build("exact")(verdict, truth) == pytest.approx(reward)


@pytest.mark.parametrize(
    "bad",
    [{"k": 0}, {"k": math.inf}, {"max_error": -1}, {"tie": 2}, {"invalid_reward": math.nan}, {"kk": 1}],
    ids=repr,
)
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValidationError):
        RewardConfig(**bad)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"exp_decay, linear.*Did you mean 'exp_decay'\?"):
        PointwiseTask(RewardConfig(name="exp_decy"))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of rewards, importable as the module `my_rewards`."""
    path = tmp_path / "my_rewards.py"
    path.write_text(
        "def half(predicted, true):\n    return 0.5\n\n"
        "def nothing(predicted, true):\n    return None\n\n"
        "def infinite(predicted, true):\n    return float('inf')\n\n"
        "LIMIT = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def test_ones_own_reward_from_a_file_and_from_a_module(own: Path) -> None:
    for name in (f"{own}:half", "my_rewards:half"):
        task = PointwiseTask(RewardConfig(name=name))
        assert task.compute_score("t", "<score>1</score>", 3)["score"] == 0.5
        assert task.compute_score("t", "?", 3)["score"] == 0.0


def test_ones_own_reward_must_return_a_number(own: Path) -> None:
    for name, shown in (("nothing", "None"), ("infinite", "inf")):
        reward = RewardConfig(name=f"{own}:{name}").build("exact")
        with pytest.raises(ConfigError, match=f"{name} returned {shown} for verdict 1, truth 3"):
            reward(1, 3)
    with pytest.raises(ConfigError, match="not a function"):
        RewardConfig(name=f"{own}:LIMIT").build("exact")


def test_what_cannot_be_loaded_is_said_in_a_sentence(own: Path) -> None:
    broken = own.with_name("broken.py")
    broken.write_text("def half(:\n")
    failing = own.with_name("failing.py")
    failing.write_text("import does_not_exist_at_all\n")
    for reference, said in (
        (f"{own.with_name('absent.py')}:half", "there is no file .*absent.py"),
        (f"{own}:haf", "no 'haf'. Did you mean 'half'"),
        (f"{broken}:half", "does not load: SyntaxError"),
        (f"{failing}:half", "does not load: ModuleNotFoundError: .*does_not_exist_at_all"),
        ("my_rewards:haf", "no 'haf'. Did you mean 'half'"),
        ("no_such_module:half", "No module named 'no_such_module'; is it on PYTHONPATH"),
        ("broken:half", "does not load: SyntaxError"),
        (":half", "does not load"),
        (".relative:half", "does not load"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_object(reference)
