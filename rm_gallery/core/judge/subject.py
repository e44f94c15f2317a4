"""`Candidate`: whatever is named as a model; `Subject`: the same, loaded and ready to be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.answer import Answer, Conversation, Judge, Mode, Scorer, too_many
from rm_gallery.core.tasks.base import Task
from rm_gallery.core.tasks.saved import SavedTask, answer_length, load_saved_task
from rm_gallery.core.train.config import load_task

Engine = Literal["transformers", "vllm"]
ENGINES: tuple[Engine, ...] = ("transformers", "vllm")
DTYPES = ("float32", "bfloat16", "auto")
ENDPOINT = "openai:"
"""What a model behind an OpenAI-compatible endpoint begins with."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a judge is asked. `max_new_tokens`: None as in the judge's training; `samples` and `seed` are a vote's."""

    mode: Mode = "greedy"
    max_new_tokens: int | None = None
    samples: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated: a judge that writes verdicts, or a scalar model; exactly one of them.

    Attributes:
        name: as it was given.
        saved: the card of a folder that this toolkit trained.
    """

    name: str
    judge: Judge | None = None
    scorer: Scorer | None = None
    saved: SavedTask | None = None

    def asking(self, task: Task[Any] | None, how: Asking) -> tuple[Callable[..., list[Answer]], str]:
        """(what `ask_all` calls with the conversations, what the answers depend on beside them).

        Raises:
            ConfigError: the model cannot be asked in this mode.
        """
        if self.scorer is not None:
            return self.scorer.score, f"score {self.scorer.fingerprint}"
        assert self.judge is not None and task is not None  # noqa: PT018 - exactly one of the two is there
        if how.mode not in self.judge.modes:
            raise ConfigError(
                f"{self.name} cannot be asked in mode {how.mode}; its modes are {', '.join(self.judge.modes)}"
            )
        if problem := too_many(task, how.mode):
            raise ConfigError(problem)
        judge, length = self.judge, how.max_new_tokens or answer_length(self.saved, task)
        drawn = (how.samples, how.seed) if how.mode == "vote" else ()
        # what the answer is read by: the parser and the legal verdicts
        read = (type(task).__module__, type(task).__qualname__, [task.format(v) for v in task.verdicts()])
        identity = repr(
            (how.mode, judge.fingerprint, None if how.mode == "expected" else length, drawn, read)
        )

        def ask(conversations: Sequence[Conversation], *, done: Callable[[dict[int, Answer]], None]) -> Any:
            return judge.answer(
                task,
                conversations,
                mode=how.mode,
                max_new_tokens=length,
                samples=how.samples,
                seed=how.seed,
                done=done,
            )

        return ask, identity


@dataclass(frozen=True)
class Candidate:
    """A model as it is named, not loaded yet.

    Attributes:
        name: a folder or hub id of a generative judge or of a scalar model; or `openai:NAME`, a model behind an
            endpoint, with the key from `OPENAI_API_KEY`.
        engine: what runs a folder.
        dtype: of the computation.
        batch_size: texts written at once.
        batch_tokens: tokens read at once, in mode `expected` or by a scalar model; `engine` "vllm" sees to that itself.
        base_url: of the endpoint; by default `OPENAI_BASE_URL`, else OpenAI.
        concurrency: questions under way at an endpoint at once.
        trust_remote_code: run code that comes with the model.
    """

    name: str
    engine: Engine = "transformers"
    dtype: str = "float32"
    batch_size: int = 16
    batch_tokens: int = 8192
    base_url: str | None = None
    concurrency: int = 16
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"--engine is {self.engine!r}; it can be {' or '.join(ENGINES)}")
        if self.dtype not in DTYPES:
            raise ConfigError(
                f"--dtype is {self.dtype!r}; it can be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}"
            )
        if self.base_url is not None and not self.is_endpoint:
            raise ConfigError(f"--base-url is for a model behind an endpoint: --model {ENDPOINT}NAME")

    @property
    def is_endpoint(self) -> bool:
        return self.name.startswith(ENDPOINT)

    @cached_property  # of a hub id the answer is fetched
    def is_scalar(self) -> bool:
        """Whether it gives numbers, and not verdicts; by its configuration alone."""
        from rm_gallery.core.judge.scalar import is_scalar_model

        return not self.is_endpoint and is_scalar_model(self.name)

    @cached_property
    def saved(self) -> SavedTask | None:
        """The card of a folder with a judge that this toolkit trained."""
        if self.is_endpoint or self.is_scalar:
            return None
        return load_saved_task(self.name, trust_remote_code=self.trust_remote_code)

    def task(self, name: str | None = None, default: str | None = None) -> Task[Any] | None:
        """What it is asked: the task so named (as `load_task` takes it), else a saved judge's own, else `default`.

        By the name of its own task a saved judge is asked just that, with its own instruction. A scalar model is asked
        nothing: None.
        """
        if self.is_scalar:
            return None
        own = self.saved.task if self.saved else None
        if own is not None and name in (None, own.name):
            return own
        wanted = name or default
        return None if wanted is None else load_task(wanted)

    def open(self) -> Subject:
        """Load the model, or connect to it.

        Raises:
            ConfigError: there is no such model, or its engine cannot run it.
            MissingDependency: an extra is not installed.
        """
        options: dict[str, Any] = {"dtype": self.dtype, "trust_remote_code": self.trust_remote_code}
        if self.is_endpoint:
            from rm_gallery.core.judge.endpoint import EndpointJudge
            from rm_gallery.core.models import OpenAIChatModel

            model = OpenAIChatModel(
                model=self.name.removeprefix(ENDPOINT),
                base_url=self.base_url,
                max_concurrency=self.concurrency,
            )
            return Subject(self.name, judge=EndpointJudge(model))
        if self.is_scalar:
            from rm_gallery.core.judge.scalar import ScalarJudge

            return Subject(
                self.name, scorer=ScalarJudge.load(self.name, batch_tokens=self.batch_tokens, **options)
            )
        judge: Judge
        if self.engine == "vllm":
            from rm_gallery.core.judge.vllm import VllmJudge

            judge = VllmJudge.load(self.name, **options)
        else:
            from rm_gallery.core.judge.local import LocalJudge

            judge = LocalJudge.load(
                self.name, batch_size=self.batch_size, batch_tokens=self.batch_tokens, **options
            )
        return Subject(self.name, judge=judge, saved=self.saved)
