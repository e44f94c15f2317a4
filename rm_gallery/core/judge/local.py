"""`LocalJudge`: a model in this process, asked in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rm_gallery.core.judge.answer import MODES
from rm_gallery.core.judge.base import ModelJudge, Tokens, Written
from rm_gallery.core.models.fingerprint import model_fingerprint
from rm_gallery.core.models.tree import Tree

if TYPE_CHECKING:  # torch is loaded with the judge, not with this module
    import torch


class LocalJudge(ModelJudge):
    """A causal language model and its tokenizer.

    Args:
        model: a transformers model, in evaluation mode, on its device.
        tokenizer: with a chat template.
        reasoning_model: render the chat template with `enable_thinking` on.
        batch_size: texts written at once. The samples of a vote stay together; they count one by one on a GPU, where each
            costs as much as another question.
        batch_tokens: tokens encoded at once in mode `expected`.
        autocast: compute in this dtype over the model's own weights.
        fingerprint: tells the judge from another.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        reasoning_model: bool = False,
        batch_size: int = 16,
        batch_tokens: int = 8192,
        autocast: torch.dtype | None = None,
        fingerprint: str = "",
    ) -> None:
        super().__init__(tokenizer, reasoning_model=reasoning_model, fingerprint=fingerprint)
        self.model = model
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.autocast = autocast
        if model is not None:
            from rm_gallery.core.models.scoring import logit_transforms

            if logit_transforms(model):  # its probabilities are not those of its head
                self.modes = tuple(mode for mode in MODES if mode != "expected")

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        reasoning_model: bool | None = None,
        batch_size: int = 16,
        batch_tokens: int = 8192,
        dtype: str = "float32",
        trust_remote_code: bool = False,
    ) -> LocalJudge:
        """Load a folder or hub id. `reasoning_model` defaults to what the folder's card says.

        `dtype` is that of weights and computation: `float32`, `bfloat16`, `auto`.

        Raises:
            ConfigError: there is no model at `path`.
            MissingDependency: the `train` extra is not installed.
        """
        from rm_gallery.core.models.require import require
        from rm_gallery.core.tasks.saved import load_saved_task

        require("train", "torch", "transformers")
        from rm_gallery.core.models.weights import default_device, load_model, load_tokenizer, resolve_dtype

        saved = load_saved_task(path, trust_remote_code=trust_remote_code)
        if reasoning_model is None:
            reasoning_model = saved is not None and saved.reasoning_model
        compute = resolve_dtype(dtype)
        model = load_model(path, dtype=compute, trust_remote_code=trust_remote_code)
        model = model.to(default_device()).eval()
        return cls(
            model,
            load_tokenizer(path, trust_remote_code=trust_remote_code),
            reasoning_model=reasoning_model,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            fingerprint=f"{model_fingerprint(path)} {compute} {reasoning_model}",
        )

    @property
    def context(self) -> int | None:
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def complete(self, prompts: Sequence[Tokens], *, max_new_tokens: int) -> Iterator[dict[int, Written]]:
        ends = self.ends
        for batch, rows in self._decode(prompts, max_new_tokens=max_new_tokens, samples=None, seed=0):
            found = {}
            for i, row, text in zip(
                batch, rows, self.tokenizer.batch_decode(rows, skip_special_tokens=True), strict=True
            ):
                length = next((n for n, token in enumerate(row, start=1) if token in ends), None)
                found[i] = Written(text, length or len(row), length is not None)
            yield found

    def sample(
        self,
        prompts: Sequence[Tokens],
        *,
        samples: int,
        max_new_tokens: int,
        seed: int,
        until: Callable[[Sequence[int]], bool],
    ) -> list[list[list[int]]]:
        """For each of distinct prompts the tokens of its samples, as a vote draws them, padded behind their end: that of
        the turn, or where `until` is true."""
        found: dict[int, list[list[int]]] = {}
        for batch, rows in self._decode(
            prompts, max_new_tokens=max_new_tokens, samples=samples, seed=seed, until=until
        ):
            found |= {i: rows[n * samples : (n + 1) * samples] for n, i in enumerate(batch)}
        return [found[i] for i in range(len(prompts))]

    @property
    def ends(self) -> set[int]:
        """The tokens that end a turn."""
        end = self._plain(1).eos_token_id
        return set(end) if isinstance(end, list) else {end}

    def _write(
        self, prompts: Sequence[Tokens], *, max_new_tokens: int, samples: int | None, seed: int
    ) -> Iterator[dict[int, list[str]]]:
        each = samples or 1
        for batch, rows in self._decode(prompts, max_new_tokens=max_new_tokens, samples=samples, seed=seed):
            texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
            yield {i: texts[n * each : (n + 1) * each] for n, i in enumerate(batch)}

    def _decode(
        self,
        prompts: Sequence[Tokens],
        *,
        max_new_tokens: int,
        samples: int | None,
        seed: int,
        until: Callable[[Sequence[int]], bool] | None = None,
    ) -> Iterator[tuple[list[int], list[list[int]]]]:
        """(positions, the new tokens of each, `samples` rows a position, padded behind their end) in batches."""
        from rm_gallery.core.judge.sampling import draws
        from rm_gallery.core.models.writing import grows, write

        each = samples or 1
        size = self.batch_size if grows(self.model) else max(1, self.batch_size // each)
        order = _batch_order(prompts)
        # longest first: if memory does not suffice, that shows at once
        for batch in reversed([order[i : i + size] for i in range(0, len(order), size)]):
            asked = [prompts[i] for i in batch]
            left = max_new_tokens if self.context is None else self.context - max(map(len, asked))
            length = min(max_new_tokens, left) if left > 0 else max_new_tokens
            with self._precision():
                written = write(
                    self.model,
                    asked,
                    [row for row in range(len(asked)) for _ in range(each)],
                    config=self._plain(length),
                    processors=draws(asked, samples, max_new_tokens, seed),
                    until=until,
                )
            yield batch, written

    def _weigh(self, prompts: Sequence[Tokens], tree: Tree) -> Iterator[dict[int, list[float]]]:
        from rm_gallery.core.judge.expected import weigh_alone, weigh_together
        from rm_gallery.core.models.forest import fits_forest

        weighed = (
            weigh_together(self.model, prompts, tree, self.batch_tokens)
            if fits_forest(self.model)
            else weigh_alone(self.model, prompts, tree)
        )
        while True:
            # not around the loop: whoever reads the batches computes in a precision of his own
            with self._precision():
                batch = next(weighed, None)
            if batch is None:
                return
            yield batch

    def _plain(self, max_new_tokens: int) -> Any:
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


def _batch_order(prompts: Sequence[Tokens]) -> list[int]:
    """Positions with like prompts next to each other: those that begin alike, whose beginning is then encoded once,
    and among these, and their groups, like lengths, for padding costs as much as tokens."""
    groups: list[list[int]] = []
    for i in sorted(range(len(prompts)), key=lambda i: prompts[i]):
        before = prompts[groups[-1][0]] if groups else ()
        shared = len(os.path.commonprefix([before, prompts[i]]))  # noqa: RUF071 - of tokens, not of paths
        if groups and 2 * shared > max(len(before), len(prompts[i])):
            groups[-1].append(i)
        else:
            groups.append([i])
    groups.sort(key=lambda group: max(len(prompts[i]) for i in group))
    return [i for group in groups for i in sorted(group, key=lambda i: len(prompts[i]))]
