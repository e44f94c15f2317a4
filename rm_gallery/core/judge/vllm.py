"""`VllmJudge`: a model in this process run by vLLM, where that is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import MODES
from rm_gallery.core.judge.base import ModelJudge, Tokens, Written
from rm_gallery.core.judge.continuous import Continuous
from rm_gallery.core.models.fingerprint import model_fingerprint
from rm_gallery.core.models.tree import END, Tree

_MOST_LABELS = 128
"""Tokens of one place whose probability vLLM gives at once."""


class VllmJudge(ModelJudge):
    """A language model in vLLM's offline engine, which several threads may ask at once.

    Mode `expected` puts one request for each place in the tree of verdicts: the prompt with the tokens so far, and the
    log-probabilities of those that may follow. Prefix caching encodes the prompt once for all of them.

    Args:
        engine: a `vllm.LLM` with prefix caching and its default `logprobs_mode`, asked by nobody else.
        tokenizer: of transformers, with a chat template.
        reasoning_model: render the chat template with `enable_thinking` on.
        batch_size: prompts handed to the engine, which makes its own batches, between two reports of answers.
        fingerprint: tells the judge from another.
    """

    batches = True

    def __init__(
        self,
        engine: Any,
        tokenizer: Any,
        *,
        reasoning_model: bool = False,
        batch_size: int = 256,
        fingerprint: str = "",
    ) -> None:
        super().__init__(tokenizer, reasoning_model=reasoning_model, fingerprint=fingerprint)
        from vllm import SamplingParams

        self.engine = engine
        self._continuous = Continuous(engine.llm_engine)
        self.batch_size = batch_size
        if not hasattr(SamplingParams, "logprob_token_ids"):  # an older vLLM gives the likeliest tokens only
            self.modes = tuple(mode for mode in MODES if mode != "expected")

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        reasoning_model: bool | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        batch_size: int = 256,
        **engine: Any,
    ) -> VllmJudge:
        """Load a folder or hub id. `reasoning_model` defaults to what the folder's card says.

        `dtype` is that of weights and computation; `engine` goes to `vllm.LLM` (`tensor_parallel_size`, …).

        Raises:
            ConfigError: there is no model at `path`, or vLLM cannot run it.
            MissingDependency: vLLM is not installed.
        """
        from rm_gallery.core.models.require import require
        from rm_gallery.core.tasks.saved import load_saved_task

        require("verl", "vllm")
        from vllm import LLM

        from rm_gallery.core.models.weights import load_tokenizer

        saved = load_saved_task(path, trust_remote_code=trust_remote_code)
        if reasoning_model is None:
            reasoning_model = saved is not None and saved.reasoning_model
        tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
        options = {"enable_prefix_caching": True, "disable_log_stats": True, **engine}
        try:
            llm = LLM(str(path), dtype=dtype, trust_remote_code=trust_remote_code, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"vLLM could not load {path}: {str(error).strip().splitlines()[0]}") from error
        return cls(
            llm,
            tokenizer,
            reasoning_model=reasoning_model,
            batch_size=batch_size,
            fingerprint=f"{model_fingerprint(path)} vllm {dtype} {reasoning_model}",
        )

    @property
    def context(self) -> int | None:
        return int(self.engine.llm_engine.model_config.max_model_len)

    def complete(self, prompts: Sequence[Tokens], *, max_new_tokens: int) -> Iterator[dict[int, Written]]:
        for batch in self._decode(prompts, max_new_tokens=max_new_tokens, samples=None, seed=0):
            yield {
                i: Written(self._texts([row])[0], len(row.token_ids), row.finish_reason == "stop")
                for i, [row] in batch.items()
            }

    def _write(
        self, prompts: Sequence[Tokens], *, max_new_tokens: int, samples: int | None, seed: int
    ) -> Iterator[dict[int, list[str]]]:
        for batch in self._decode(prompts, max_new_tokens=max_new_tokens, samples=samples, seed=seed):
            yield {i: self._texts(rows) for i, rows in batch.items()}

    def _texts(self, rows: Sequence[Any]) -> list[str]:
        ids = [list(row.token_ids) for row in rows]
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=True))

    def _decode(
        self, prompts: Sequence[Tokens], *, max_new_tokens: int, samples: int | None, seed: int
    ) -> Iterator[dict[int, list[Any]]]:
        """vLLM's `CompletionOutput`s of each prompt, in batches."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        from rm_gallery.core.judge.sampling import prompt_seed

        for batch in self._batches(prompts):
            settings = [
                SamplingParams(
                    n=samples or 1,
                    temperature=0.0 if samples is None else 1.0,
                    seed=None
                    if samples is None
                    else prompt_seed(seed, prompts[i]) >> 1,  # it counts up from there
                    max_tokens=max_new_tokens,
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                for i in batch
            ]
            outputs = self._run([prompts[i] for i in batch], settings)
            yield {i: output.outputs for i, output in zip(batch, outputs, strict=True)}

    def _weigh(self, prompts: Sequence[Tokens], tree: Tree) -> Iterator[dict[int, list[float]]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        places = range(END, len(tree.tokens))
        following: dict[int, list[int]] = {place: [] for place in places}
        for place, token in tree.edges:
            following[place].append(token)
        asked = [
            (tuple(tree.before(place)), labels[start : start + _MOST_LABELS], place)
            for place, labels in following.items()
            for start in range(0, len(labels), _MOST_LABELS)
        ]
        settings = [
            SamplingParams(
                max_tokens=1,
                temperature=0.0,
                logprob_token_ids=labels,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            for _, labels, _ in asked
        ]
        for batch in self._batches(prompts):
            requests = [(*prompts[i], *so_far) for i in batch for so_far, _, _ in asked]
            outputs = iter(self._run(requests, settings * len(batch)))
            found = {}
            for i in batch:
                edges = {}
                for (_, labels, place), output in zip(asked, outputs, strict=False):
                    [given] = output.outputs[0].logprobs
                    edges.update({(place, token): given[token].logprob for token in labels})
                found[i] = [sum(edges[tree.edges[edge]] for edge in path) for path in tree.paths]
            yield found

    def _batches(self, prompts: Sequence[Tokens]) -> Iterator[list[int]]:
        """Those that begin alike together, for the cache of prefixes."""
        order = sorted(range(len(prompts)), key=lambda i: prompts[i])
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _run(self, prompts: Sequence[Tokens], settings: Sequence[Any]) -> list[Any]:
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return self._continuous.run(asked, settings)
