"""The service on a free port of 127.0.0.1, in a thread: real uvicorn, a real model.

with serving(folder, "pointwise") as service:
    httpx.post(f"{service.url}/v1/score", json={"items": [...]})
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rm_gallery.core.judge.subject import Candidate, Subject
from rm_gallery.core.serve import Settings, create_app
from rm_gallery.core.serve.run import Server, listen
from rm_gallery.core.tasks import Task, get_task


@dataclass
class Running:
    """A service that takes requests.

    Attributes:
        url: without a slash at its end.
        http: a client of it, which sends the key where there is one.
        subject: the model, as the service has it.
    """

    url: str
    http: httpx.Client
    subject: Subject
    server: Server

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)

    def results(self, path: str, items: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
        """Of a request that must succeed."""
        response = self.post(path, {"items": items, **more})
        assert response.status_code == 200, response.text
        return response.json()["results"]


@contextlib.contextmanager
def serving(model: Path | Subject, task: str | Task[Any] | None = None, **settings: Any) -> Iterator[Running]:
    """Serve a folder, or an open subject, while in the `with` block. `settings` are those of `Settings`."""
    subject = model if isinstance(model, Subject) else Candidate(str(model)).open()
    app = create_app(subject, get_task(task) if isinstance(task, str) else task, Settings(**settings))
    ready = threading.Event()
    server = Server(app, ready.set)
    listening = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert ready.wait(30)
    key = settings.get("api_key")
    headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
        yield Running(url, http, subject, server)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()
