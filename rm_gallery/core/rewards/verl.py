"""A judge that `rmg serve` runs as the reward of someone's RL run with verl, which loads this function by path:

reward.custom_reward_function.path=pkg://rm_gallery.core.rewards.verl
reward.custom_reward_function.name=compute_score
+reward.custom_reward_function.reward_kwargs.url=http://127.0.0.1:8000
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rm_gallery.core.errors import DataError, MissingReward
from rm_gallery.core.rewards.scored import turns_of
from rm_gallery.core.rewards.service import ServiceClient

QUERIES = ("messages", "query", "prompt", "question")
"""Where in `extra_info` the query is looked for: the first of these that is there."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str,
    query_key: str | None = None,
    timeout: float = 120.0,
    max_retries: int = 8,
    **_: Any,
) -> dict[str, float]:
    """The judge's score of one rollout, on the judge's own scale.

    verl's reward loop awaits it for many rollouts at once; the service makes batches of them. verl hands a reward no
    prompt, so `extra_info`, a column of the data, must hold it. The key, where the service asks for one, stands in the
    environment as `RMG_API_KEY`, on every node.

    Args:
        url: of the service, as every node reaches it.
        query_key: where in `extra_info` the query is, a text or chat messages; by default the first of `QUERIES`.
        timeout, max_retries: as of `ServiceClient`.

    Returns:
        `{"score": …}`.

    Raises:
        MissingReward: there is no score; says why. verl leaves out the whole group of that prompt.
        DataError: `extra_info` holds no query.
    """
    query = _query(extra_info or {}, query_key, data_source)
    [found] = await _client(url, timeout, max_retries).ascore([{**query, "response": solution_str}])
    if found.score is None:
        raise MissingReward(f"no reward for a rollout of {data_source}: {found.problem}")
    return {"score": found.score}


def _query(extra_info: Mapping[str, Any], key: str | None, data_source: str) -> dict[str, Any]:
    known = [name for name in ((key,) if key else QUERIES) if extra_info.get(name) is not None]
    if not known:
        wanted = key or f"{', '.join(QUERIES[:-1])} or {QUERIES[-1]}"
        raise DataError(
            f"extra_info of a row of {data_source} holds no {wanted}, and verl gives a reward no prompt: add it to the "
            f"data, or name its key in query_key"
        )
    value = extra_info[known[0]]
    value = value.tolist() if hasattr(value, "tolist") else value  # Parquet's lists
    if isinstance(value, str):
        return {"query": value}
    try:
        return {"messages": turns_of(value)}
    except DataError as error:
        raise MissingReward(f"no reward for a rollout of {data_source}: {known[0]}: {error}") from None


@lru_cache(maxsize=8)
def _client(url: str, timeout: float, max_retries: int) -> ServiceClient:
    return ServiceClient(url, timeout=timeout, max_retries=max_retries, max_concurrency=64)
