"""verl's reward from a judge that `rmg serve` runs. verl loads this file by path, and awaits `compute_score`:

reward.custom_reward_function.path=examples/reward/verl_reward.py
reward.custom_reward_function.name=compute_score
+reward.custom_reward_function.reward_kwargs.url=http://127.0.0.1:8000

The rows of the data hold the query in `extra_info` (`{"query": "…"}` or `{"messages": […]}`): verl gives a reward no
prompt. Run as a script, it asks the service about two rollouts as verl would:

python examples/reward/verl_reward.py http://127.0.0.1:8000
"""

import asyncio
import sys

from rm_gallery.core.rewards.verl import compute_score

__all__ = ["compute_score"]

ROW = {"data_source": "example", "ground_truth": None, "extra_info": {"query": "What is 2 + 3?"}}


async def main(url: str) -> None:
    rollouts = ["It is 5.", "I would rather talk about the weather."]
    scores = await asyncio.gather(*(compute_score(**ROW, solution_str=text, url=url) for text in rollouts))
    for text, score in zip(rollouts, scores, strict=True):
        print(f"{score['score']:.3f}  {text}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
