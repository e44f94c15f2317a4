"""TRL's GRPO with a judge as its reward.

rmg models fetch smollm2-135m-instruct --out models/small
python examples/reward/trl_grpo.py --policy models/small --judge runs/quickstart/grpo/actor_latest --steps 5
python examples/reward/trl_grpo.py --policy models/small --judge http://127.0.0.1:8000 --steps 5   # rmg serve
"""

import argparse

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from rm_gallery.core.rewards.trl import as_trl_reward

QUESTIONS = [
    "How do I get a stain of red wine out of a shirt?",
    "Explain to a child why the sky is blue.",
    "Write two sentences that decline an invitation politely.",
    "What should I check before I buy a used bicycle?",
]


def train(policy: str, judge: str, steps: int, out: str, length: int = 64) -> list[dict[str, float]]:
    """Train and give back what TRL logged, a step each."""
    gpu = torch.cuda.is_available()
    prompts = [{"prompt": [{"role": "user", "content": question}]} for question in QUESTIONS]
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=as_trl_reward(judge),
        train_dataset=Dataset.from_list(prompts),
        args=GRPOConfig(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=length,
            learning_rate=1e-5,
            use_cpu=not gpu,
            bf16=gpu,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
    )
    trainer.train()
    trainer.save_model(out)
    return [line for line in trainer.state.log_history if "reward" in line]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", required=True, help="folder or hub id of the model that is trained")
    parser.add_argument(
        "--judge", required=True, help="folder of a judge or scalar model, or address of a service"
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--length", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--out", default="runs/rewarded")
    given = parser.parse_args()
    for number, line in enumerate(
        train(given.policy, given.judge, given.steps, given.out, given.length), start=1
    ):
        print(f"step {number}  reward {line['reward']:.3f}  without a reward {line['judge/missing']:.0%}")
