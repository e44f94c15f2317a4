"""transformers' own `generate` as a judge, for benchmarks/judge.py."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.weights import load_model

ANSWER = 32
"""New tokens at most: `rmg eval`'s default for a judge that does not reason."""


class Closed(StoppingCriteria):
    """Stops each row whose answer holds the closing tag."""

    def __init__(self, tokenizer, prompt: int, tag: str) -> None:
        self.tokenizer, self.prompt, self.tag = tokenizer, prompt, tag

    def __call__(self, input_ids, scores, **_):
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt :])
        return torch.tensor([self.tag in text for text in texts], device=input_ids.device)


class Plain:
    """transformers' `generate` as one would use it, with care."""

    def __init__(self, path: str, dtype: torch.dtype, judge: LocalJudge) -> None:
        self.model = load_model(path, dtype=dtype).to(judge.model.device).eval()
        self.tokenizer = judge.tokenizer
        own = judge.model.generation_config.eos_token_id
        self.config = GenerationConfig(
            max_new_tokens=ANSWER,
            do_sample=False,
            repetition_penalty=1.0,
            eos_token_id=own if own is not None else self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def answer(self, prompts: list[tuple[int, ...]], batch_size: int, tag: str) -> tuple[list[str], int]:
        """The texts in order, and how many tokens were written."""
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        texts, written, pad = [""] * len(prompts), 0, self.tokenizer.pad_token_id
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            width = len(prompts[batch[0]])
            rows = [[pad] * (width - len(prompts[i])) + list(prompts[i]) for i in batch]
            masks = [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch]
            with torch.no_grad():
                output = self.model.generate(
                    input_ids=torch.tensor(rows, device=self.model.device),
                    attention_mask=torch.tensor(masks, device=self.model.device),
                    generation_config=self.config,
                    stopping_criteria=StoppingCriteriaList([Closed(self.tokenizer, width, tag)]),
                )[:, width:]
            written += int((output != pad).sum())
            for i, text in zip(
                batch, self.tokenizer.batch_decode(output, skip_special_tokens=True), strict=True
            ):
                texts[i] = text
        return texts, written

    def fastest(self, prompts: list[tuple[int, ...]], sizes: list[int], tag: str) -> dict[int, float]:
        """Seconds for each batch size."""
        found = {}
        for size in sizes:
            found[size] = timed(lambda size=size: self.answer(prompts, size, tag))[0]
            print(
                f"  generate, batches of {size}: {found[size]:.1f} s for {len(prompts)} questions", flush=True
            )
        return found


def timed(run: Callable):
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result
