"""What the tests of method `exact` share: rows that follow a rule, and small models that can write verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from rm_gallery.core.data.samples import Message, Sample
from rm_gallery.core.models.tree import Tree


def write_rule(path: Path, number: int, *, start: int = 0) -> Path:
    """Responses that are as helpful as they have exclamation marks, from 0 to 4."""
    rows = []
    for i in range(start, start + number):
        marks = (7 * i + i // 5) % 5
        text = f"answer {i % 3}" + "!" * marks
        rows.append(
            Sample((Message("user", f"q{i % 4}"),), text, {"helpfulness": marks}, f"row-{i}").to_row()
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings_for(model: Path, folder: Path, /, **sections: Any) -> dict[str, Any]:
    """A small configuration of method `exact`; a section is merged into its default."""
    base: dict[str, Any] = {
        "task": "pointwise",
        "method": "exact",
        "model": {"path": str(model), "dtype": "float32"},
        "prompt": {"instruction": "Rate."},
        "data": {
            "train": str(write_rule(folder / "train.jsonl", 40)),
            "val": str(write_rule(folder / "val.jsonl", 10, start=100)),
        },
        "train": {
            "batch_size": 8,
            "mini_batch_size": 8,
            "max_steps": 4,
            "learning_rate": 3e-3,
            "eval_every": None,
            "save_every": None,
        },
        "rollout": {"max_response_length": 20},
        "output_dir": str(folder / "runs"),
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
    return base


VOCABULARY, END = 6, 5
"""Of the smallest model; its answers have at most `LONGEST` tokens, the end included."""
LONGEST = 3
VERDICTS = ((0, END), (1, 2, END), (1, 3, END))


def smallest_model(seed: int = 0) -> Any:
    """GPT-NeoX of 6 tokens, whose norms are in float64 too (a Llama's are not): all it can write is listed at once."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    )
    return GPTNeoXForCausalLM(config).double()


def tree() -> Tree:
    return Tree.of(VERDICTS)


def log_prob(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """Of one answer behind one prompt, by the model's own forward pass."""
    ids = torch.tensor([[*prompt, *answer]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    steps = logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]
    return steps.sum()


def all_answers() -> list[tuple[int, ...]]:
    """Every answer the smallest model can write: ended, or cut off."""
    found: list[tuple[int, ...]] = [()]
    done: list[tuple[int, ...]] = []
    for _ in range(LONGEST):
        longer = [(*answer, token) for answer in found for token in range(VOCABULARY)]
        done += [answer for answer in longer if answer[-1] == END]
        found = [answer for answer in longer if answer[-1] != END]
    return done + found


def flat_gradient(model: Any) -> torch.Tensor:
    """The gradients of all weights as one vector; they are cleared."""
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return gradient
