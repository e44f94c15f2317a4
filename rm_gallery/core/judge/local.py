"""`LocalJudge`: a model in this process, asked in batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch is loaded with the judge, not with this module
    import torch

    from rm_gallery.core.tasks import Task

Conversation = Sequence[dict[str, str]]
_PROBE = "=answer="


@dataclass(frozen=True, slots=True)
class Distribution:
    """A judge's probabilities of the legal verdicts.

    `probabilities` are normalised over the legal verdicts; `mass` is what the model gave them together, in
    [0, 1], of all texts it could have written.
    """

    verdicts: tuple[Any, ...]
    probabilities: tuple[float, ...]
    mass: float


class LocalJudge:
    """A causal language model and its tokenizer.

    Args:
        model: a transformers model, in evaluation mode, on its device.
        tokenizer: with a chat template and padding on the left.
        reasoning_model: render the chat template with `enable_thinking` on.
        autocast: compute in this dtype over the model's own weights.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        reasoning_model: bool = False,
        batch_size: int = 16,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.reasoning_model = reasoning_model
        self.batch_size = batch_size
        self.autocast = autocast

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        reasoning_model: bool | None = None,
        batch_size: int = 16,
        dtype: str = "float32",
        trust_remote_code: bool = False,
    ) -> LocalJudge:
        """Load a folder or hub id. `reasoning_model` defaults to what the folder's card says.

        `dtype` is that of the computation (`float32`, `bfloat16`, `auto`); on a CPU the weights stay in float32.

        Raises:
            ConfigError: there is no model at `path`.
            MissingDependency: the `train` extra is not installed.
        """
        from rm_gallery.core.models.require import require
        from rm_gallery.core.tasks.saved import load_saved_task

        require("train", "torch", "transformers")
        import torch

        from rm_gallery.core.models.weights import default_device, load_model, load_tokenizer, resolve_dtype

        saved = load_saved_task(path)
        if reasoning_model is None:
            reasoning_model = saved is not None and saved.reasoning_model
        device = default_device()
        compute = resolve_dtype(dtype)
        weights = torch.float32 if device.type == "cpu" else compute
        model = load_model(path, dtype=weights, trust_remote_code=trust_remote_code).to(device).eval()
        return cls(
            model,
            load_tokenizer(path, trust_remote_code=trust_remote_code),
            reasoning_model=reasoning_model,
            batch_size=batch_size,
            autocast=None if compute == weights else compute,
        )

    def render(self, conversation: Conversation) -> str:
        """The text of the chat template, ready for the judge's answer."""
        return str(
            self.tokenizer.apply_chat_template(
                list(conversation),
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self.reasoning_model,
            )
        )

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
    ) -> list[str]:
        """The judge's answers by greedy decoding, in the order of `conversations`."""
        import torch

        from rm_gallery.core.models.prompts import distinct_prompts
        from rm_gallery.core.models.shared_prefix import encode_prompts
        from rm_gallery.core.models.weights import decoding

        texts = [self.render(conversation) for conversation in conversations]
        order = _batch_order(texts)
        answers = [""] * len(texts)
        # longest first: if memory does not suffice, that shows at once
        for batch in reversed(
            [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        ):
            inputs = self._encode([texts[i] for i in batch])
            with decoding(self.model), torch.no_grad(), self._precision():
                prompts, rows = distinct_prompts(inputs["input_ids"], inputs["attention_mask"])
                # all but the last token: `generate` takes the cache and goes on from there
                cache, _ = encode_prompts(self.model, prompts.without_last(), rows)
                output = self.model.generate(
                    input_ids=prompts.ids[rows],
                    attention_mask=prompts.mask[rows],
                    past_key_values=cache,
                    generation_config=self._greedy(max_new_tokens),
                )
            new = output[:, prompts.ids.size(1) :]
            for i, text in zip(
                batch, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
            ):
                answers[i] = text
        return answers

    def distribution(self, task: Task[Any], conversation: Conversation) -> Distribution:
        """The exact probability of each legal verdict as this judge's whole answer, no sampling.

        Each verdict's canonical text, with the end of the turn, is scored as a continuation of the prompt, which is
        encoded once. For a judge that reasons first this is not its probability of a verdict, but that of giving it
        without any reasoning.
        """
        import torch

        from rm_gallery.core.models.prompts import Prompts
        from rm_gallery.core.models.shared_prefix import score_completions

        prompt = self._encode([self.render(conversation)])
        verdicts = tuple(task.verdicts())
        end = self._end_of_turn()
        ends = self.tokenizer(
            [task.format(verdict) + end for verdict in verdicts],
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        ).to(self.model.device)
        with torch.no_grad(), self._precision():
            scores = score_completions(
                self.model,
                torch.zeros(len(verdicts), dtype=torch.long, device=self.model.device),
                prompts=Prompts.plain(prompt["input_ids"], prompt["attention_mask"]),
                completion_ids=ends["input_ids"],
                completion_mask=ends["attention_mask"],
            )
        probabilities = scores.log_probs.double().sum(1).exp()
        mass = float(probabilities.sum())
        return Distribution(verdicts, tuple((probabilities / mass).tolist()), mass)

    def _encode(self, texts: list[str]) -> Any:
        # the chat template has written the special tokens already
        encoded = self.tokenizer(
            texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        )
        return {key: encoded[key].to(self.model.device) for key in ("input_ids", "attention_mask")}

    def _end_of_turn(self) -> str:
        """What the chat template writes after an answer: not the end-of-sequence token in every family."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
        rendered = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        return rendered.rpartition(_PROBE)[2].rstrip() or str(self.tokenizer.eos_token)

    def _greedy(self, max_new_tokens: int) -> Any:
        """Plain greedy decoding: the model's own configuration may ask for sampling or a repetition penalty,
        and the prompt holds the very tags and digits that a penalty would push down."""
        from transformers import GenerationConfig

        own = self.model.generation_config
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # what is None here would be filled from the model's own
            no_repeat_ngram_size=0,
            eos_token_id=own.eos_token_id if own.eos_token_id is not None else self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.model.device.type, self.autocast) if self.autocast else nullcontext()


def _batch_order(texts: Sequence[str]) -> list[int]:
    """Indices with like prompts next to each other: those that begin alike, whose beginning is then encoded once,
    and among these, and their groups, like lengths, for padding costs as much as tokens."""
    by_text = sorted(range(len(texts)), key=lambda i: texts[i])
    groups: list[list[int]] = []
    for i in by_text:
        before = texts[groups[-1][0]] if groups else ""
        shared = len(os.path.commonprefix([before, texts[i]]))  # noqa: RUF071 - of texts, not of paths
        if groups and 2 * shared > max(len(before), len(texts[i])):
            groups[-1].append(i)
        else:
            groups.append([i])
    groups.sort(key=lambda group: max(len(texts[i]) for i in group))
    return [i for group in groups for i in sorted(group, key=lambda i: len(texts[i]))]
