"""`Continuous`: a vLLM engine that many threads ask at once."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple


class _Request(NamedTuple):
    prompt: Any
    settings: Any
    output: Future[Any]


class Continuous:
    """Owns the engine in one thread: what is asked while others are answered joins them at the next token.

    Args:
        engine: a `vllm.LLMEngine`.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._asked: list[_Request] = []
        self._numbers = itertools.count()
        self._open: dict[str, Future[Any]] = {}
        self._lock = threading.Lock()
        self._working = False

    def run(self, prompts: Sequence[Any], settings: Sequence[Any]) -> list[Any]:
        """vLLM's output for each prompt, in their order.

        Args:
            settings: vLLM's `SamplingParams`, whose `output_kind` is `FINAL_ONLY`.

        Raises:
            Exception: what vLLM raised for one of them; the rest of these prompts are computed for nothing.
        """
        requests = [
            _Request(prompt, wanted, Future()) for prompt, wanted in zip(prompts, settings, strict=True)
        ]
        with self._lock:
            self._asked += requests
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="rm-gallery-vllm", daemon=True).start()
        return [request.output.result() for request in requests]

    def _work(self) -> None:
        """Ends when nothing is left: a thread that waited would keep the engine of a judge that is gone."""
        while True:
            with self._lock:
                new, self._asked = self._asked, []
                if not new and not self._open:
                    self._working = False
                    return
            for request in new:
                self._add(request)
            if self._open:
                self._step()

    def _step(self) -> None:
        """A token more of all that is open."""
        try:
            outputs = self._engine.step()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits; an engine that died says so again
            given_up = list(self._open)
            for output in self._open.values():
                output.set_exception(error)
            self._open.clear()
            with contextlib.suppress(Exception):  # of an engine that goes on; one that died has nothing open
                self._engine.abort_request(given_up)
            return
        for output in outputs:
            if output.finished and (waiting := self._open.pop(output.request_id, None)):
                waiting.set_result(output)

    def _add(self, request: _Request) -> None:
        name = str(next(self._numbers))
        try:
            self._engine.add_request(name, request.prompt, request.settings)
        except Exception as error:  # noqa: BLE001 - this one's: too long, or not as vLLM takes it
            request.output.set_exception(error)
            return
        self._open[name] = request.output
