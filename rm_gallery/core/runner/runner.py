"""`GradingRunner`: graders over a dataset, with nothing lost and nothing graded twice.

runner = GradingRunner({"relevance": RelevanceGrader(model=model)}, journal="grades.jsonl")
results = await runner.arun("rows.parquet")
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.graders import BaseGrader, GraderError, GraderResult
from rm_gallery.core.models.retry import Backoff
from rm_gallery.core.runner.aggregate import Aggregator, Part
from rm_gallery.core.runner.attempt import Grading, failure
from rm_gallery.core.runner.config import GraderConfig
from rm_gallery.core.runner.dataset import Dataset, open_dataset
from rm_gallery.core.runner.grading import Pass, Results
from rm_gallery.core.runner.journal import GradingJournal
from rm_gallery.core.runner.progress import progress
from rm_gallery.core.runner.sync import wait

if TYPE_CHECKING:
    from rm_gallery.core.runner.ranking import Ranking
    from rm_gallery.core.runner.tournament import Schedule, Tournament


class GradingRunner:
    """Grades datasets. What fails is a `GraderError` in its place, and never raises.

    Args:
        grader_configs: name → `GraderConfig`, or a grader by itself.
        max_concurrency: grades under way at once, of all graders together. A grade that waits for its next attempt
            keeps its place. A model has a limit of its own.
        journal: a file that keeps every grade, by the grader's configuration and what it was given. Run again with it,
            a run that was stopped goes on where it stopped, and only requests that failed are made again. An item
            that stands twice is graded once.
        retries: attempts after the first of a grade whose request failed (`attempt.RETRIED`). A model makes its own
            before.
        backoff: the waits between them.
        aggregators: name → function of an item's results, whose own result stands beside them: `weighted_sum`.
        item_id: dotted path or function, item → what else tells items apart in the journal; their fields otherwise.
        show_progress: where stderr is a terminal.

    Raises:
        ConfigError: an argument that cannot be.
    """

    def __init__(
        self,
        grader_configs: Mapping[str, GraderConfig | BaseGrader],
        *,
        max_concurrency: int = 32,
        journal: str | Path | None = None,
        retries: int = 0,
        backoff: Backoff | None = None,
        aggregators: Mapping[str, Aggregator] | None = None,
        item_id: str | Callable[[Any], Any] | None = None,
        show_progress: bool = True,
    ) -> None:
        if not isinstance(grader_configs, Mapping) or not grader_configs:
            raise ConfigError('grader_configs is empty; expected a grader by name, {"relevance": grader}')
        if max_concurrency < 1 or retries < 0:
            raise ConfigError(
                f"max_concurrency {max_concurrency} and retries {retries}: expected at least 1 and at least 0"
            )
        self.grader_configs = {
            str(name): config if isinstance(config, GraderConfig) else GraderConfig(config)
            for name, config in grader_configs.items()
        }
        self.aggregators = dict(aggregators or {})
        if twice := sorted(set(self.aggregators) & set(self.grader_configs)):
            raise ConfigError(f"{twice[0]} is the name of a grader and of an aggregator")
        self.max_concurrency = max_concurrency
        self.retries = retries
        self.backoff = backoff or Backoff()
        self.item_id = item_id
        self.show_progress = show_progress
        self._journal = None if journal is None else GradingJournal(journal)
        self._limit: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def arun(self, dataset: Dataset) -> dict[str, list[GraderResult]]:
        """Grade all items.

        Args:
            dataset: a list, a path, or any iterable or asynchronous iterable.

        Returns:
            name → results, aligned with the dataset; aggregators behind the graders.

        Raises:
            ConfigError, DataError: the dataset or the journal cannot be opened. What reading the dataset raises comes
                once all items before it are graded (and, with a journal, kept).
        """
        found: dict[int, Results] = {}
        async with aclosing(self._graded(dataset, window=None)) as batches:
            async for _, batch in batches:
                found.update(batch)
        names = [*self.grader_configs, *self.aggregators]
        return {name: [found[i][name] for i in range(len(found))] for name in names}

    def run(self, dataset: Dataset) -> dict[str, list[GraderResult]]:
        """`arun` for code that does not await; in a notebook too, which it holds up."""
        return wait(self.arun(dataset))

    async def arun_stream(
        self, dataset: Dataset, *, window: int | None = None
    ) -> AsyncGenerator[tuple[int, Results], None]:
        """Grade items as they come, and give their results back in order, with their position from 0.

        At most `window` items are held, by default eight for each grade under way, so that a dataset of any length
        takes the same memory. One item that takes long keeps at most so many behind it.

        Raises:
            As `arun`.
        """
        window = 8 * self.max_concurrency if window is None else window
        if window < 1:
            raise ConfigError(f"window is {window}, expected at least 1")
        ready: Results = {}
        waiting: dict[int, Results] = {}
        position = 0
        async with aclosing(self._graded(dataset, window=window)) as batches:
            async for under_way, batch in batches:
                waiting.update(batch)
                while position in waiting:
                    ready = waiting.pop(position)
                    yield position, ready
                    position += 1
                    under_way.given_back(1)

    async def arank(self, items: Sequence[Mapping[str, Any]]) -> dict[str, list[Ranking]]:
        """Rank each item's `responses` by each grader: `ranking.rank_responses`."""
        from rm_gallery.core.runner.ranking import rank_responses

        return await rank_responses(self, items)

    def rank(self, items: Sequence[Mapping[str, Any]]) -> dict[str, list[Ranking]]:
        """`arank` for code that does not await."""
        return wait(self.arank(items))

    async def atournament(
        self,
        entries: Mapping[str, Sequence[Any]],
        items: Sequence[Mapping[str, Any]],
        *,
        schedule: Schedule | None = None,
        seed: int = 0,
    ) -> dict[str, Tournament]:
        """Set players' responses against each other, by each grader of pairs: `tournament.play`."""
        from rm_gallery.core.runner.tournament import play

        return await play(self, entries, items, schedule=schedule, seed=seed)

    def tournament(
        self,
        entries: Mapping[str, Sequence[Any]],
        items: Sequence[Mapping[str, Any]],
        *,
        schedule: Schedule | None = None,
        seed: int = 0,
    ) -> dict[str, Tournament]:
        """`atournament` for code that does not await."""
        return wait(self.atournament(entries, items, schedule=schedule, seed=seed))

    async def _graded(
        self, dataset: Dataset, *, window: int | None
    ) -> AsyncGenerator[tuple[Pass, list[tuple[int, Results]]], None]:
        """The results as they come, with the pass they come from."""
        items = open_dataset(dataset)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(items.close)
            journal = None if self._journal is None else stack.enter_context(self._journal.open())
            grading = Grading(
                self.grader_configs, self.places(), journal, self.item_id, self.retries, self.backoff
            )
            total = None if items.total is None else items.total * len(self.grader_configs)
            shown = stack.enter_context(progress("grading", total, shown=self.show_progress))
            under_way = Pass(items, tuple(self.grader_configs), grading.grade, self.max_concurrency, window)
            async with aclosing(under_way.results()) as batches:
                async for batch in batches:
                    for _, results in batch:
                        errors = sum(isinstance(result, GraderError) for result in results.values())
                        shown(len(results), errors)
                        self._aggregate(results)
                    yield under_way, batch

    def _aggregate(self, results: Results) -> None:
        configs = self.grader_configs
        parts = {name: Part(results[name], config.weight) for name, config in configs.items()}
        for name, aggregate in self.aggregators.items():
            try:
                results[name] = aggregate(name, parts)
            except Exception as error:  # noqa: BLE001 (one's own function)
                results[name] = failure(name, error)

    def only(self, names: Sequence[str]) -> GradingRunner:
        """This runner with some of its graders: the same journal, the same limit, no aggregators."""
        self.places()
        part = copy.copy(self)
        part.grader_configs = {name: self.grader_configs[name] for name in names}
        part.aggregators = {}
        return part

    def places(self) -> asyncio.Semaphore:
        """The limit of all passes on this event loop."""
        loop = asyncio.get_running_loop()
        if self._limit is None or self._limit[0] is not loop:
            self._limit = (loop, asyncio.Semaphore(self.max_concurrency))
        return self._limit[1]
