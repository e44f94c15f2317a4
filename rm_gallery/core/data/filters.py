"""Filters: which judgments to keep, by turns, by length, and by one's own functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rm_gallery.core.data.config import ProcessConfig
from rm_gallery.core.data.converters import Judgment
from rm_gallery.core.data.samples import Sample
from rm_gallery.core.errors import ConfigError

Filter = Callable[[Judgment], bool]


def build_filters(config: ProcessConfig) -> dict[str, Filter]:
    """The filters of a YAML by the name under which their removals are counted; each returns "keep it".

    Raises:
        ConfigError: one's own function cannot be loaded.
    """
    from rm_gallery.core.rewards import load_object

    found: dict[str, Filter] = {}
    _bounds(found, "turns", config.min_turns, config.max_turns, lambda judgment: [len(judgment.input)])
    _bounds(found, "prompt_words", config.min_prompt_words, config.max_prompt_words, _prompt_words)
    _bounds(found, "response_words", config.min_response_words, config.max_response_words, _response_words)
    for reference in config.filters:
        function = load_object(reference)
        if not callable(function):
            raise ConfigError(f"process.filters: {reference} is not a function")
        found[reference] = function
    return found


def responses(judgment: Judgment) -> tuple[str, ...]:
    """The one response of a `Sample`, the two of a `Pair`."""
    if isinstance(judgment, Sample):
        return (judgment.response,)
    return (judgment.response_a, judgment.response_b)


def _bounds(
    found: dict[str, Filter],
    name: str,
    low: int | None,
    high: int | None,
    measure: Callable[[Judgment], Iterable[int]],
) -> None:
    if low is not None and high is not None and low > high:
        raise ConfigError(f"process: min_{name} is {low} and max_{name} {high}; no row can be both")
    if low is not None:
        least = low
        found[f"min_{name} {low}"] = lambda judgment: min(measure(judgment)) >= least
    if high is not None:
        most = high
        found[f"max_{name} {high}"] = lambda judgment: max(measure(judgment)) <= most


def _prompt_words(judgment: Judgment) -> list[int]:
    return [sum(len(message.content.split()) for message in judgment.input)]


def _response_words(judgment: Judgment) -> list[int]:
    return [len(response.split()) for response in responses(judgment)]
