"""`as_trl_reward`: a judge as the reward of someone's GRPO with TRL.

trainer = GRPOTrainer(model=policy, reward_funcs=as_trl_reward("runs/judge/actor_latest"), …)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rm_gallery.core.errors import MissingReward
from rm_gallery.core.rewards.scored import Turns, content_of, open_scorer, turns_of

if TYPE_CHECKING:  # rewards are imported by tasks, and these import tasks
    from rm_gallery.core.judge.answer import Mode
    from rm_gallery.core.judge.subject import Candidate
    from rm_gallery.core.models import OpenAIChatModel
    from rm_gallery.core.tasks.base import Task

logger = logging.getLogger("rm_gallery.rewards")

Reward = Callable[..., list[float | None]]


def as_trl_reward(
    model: str | Path | Candidate | OpenAIChatModel,
    task: Task[Any] | str | None = None,
    *,
    mode: Mode | None = None,
    name: str = "judge",
) -> Reward:
    """A reward function in the signature of TRL's `GRPOTrainer`: `(prompts, completions, **columns)` → rewards.

    The reward is the judge's score on its own scale (0 to 4 of the built-in task), of several dimensions their weighted
    mean, or a scalar model's number. All completions of a call are asked together. A completion that cannot be scored has the reward None, which TRL keeps
    out of its group's mean and gives no advantage; the first cause is logged, and their share is the metric
    `NAME/missing`.

    A judge in this process takes memory beside the policy, and one copy a process: on several GPUs, run it as a
    service and give its address.

    Args:
        model, task, mode: as `open_scorer` takes them. The address of a service has its key in `RMG_API_KEY`.
        name: by which TRL logs it: `rewards/NAME/mean`.

    Raises:
        ConfigError: the model cannot be used so.
    """
    score = open_scorer(model, task, mode=mode)

    def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Raises `MissingReward` where the judge failed for all of them, so that no step is made of nothing."""
        pairs = zip(prompts, completions, strict=True)
        found = score([(_turns(prompt), _text(completion)) for prompt, completion in pairs])
        missing = [one.problem for one in found if one.score is None]
        if (
            missing
            and all(problem.startswith("failed") for problem in missing)
            and len(missing) == len(found)
        ):
            raise MissingReward(f"none of {len(found)} completions has a reward: {missing[0]}")
        if missing:
            logger.warning("%d of %d completions have no reward: %s", len(missing), len(found), missing[0])
        if log_metric is not None:
            log_metric(f"{name}/missing", len(missing) / max(1, len(found)))
        return [one.score for one in found]

    reward.__name__ = name
    return reward


def _turns(prompt: Any) -> Turns:
    """A prompt of TRL, plain or conversational."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return turns_of(prompt)


def _text(completion: Any) -> str:
    """What the policy wrote; of several turns (tool calls between them), the last one of its own that holds text."""
    if isinstance(completion, str):
        return completion
    written = [content_of(turn) for turn in completion if turn["role"] == "assistant"]
    return next((text for text in reversed(written) if text), "")
