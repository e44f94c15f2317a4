"""`serve`: the service on a port, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import uvicorn
from fastapi import FastAPI

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.subject import Subject
from rm_gallery.core.serve.app import create_app
from rm_gallery.core.serve.guard import Gate
from rm_gallery.core.serve.settings import Settings
from rm_gallery.core.tasks.base import Task

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_IDLE = 75
"""Seconds that an idle connection stays open: longer than clients keep theirs, which then never meets a closed one."""

_LINGER = 0.5
"""Seconds for which clients that just had an answer still hear that there will be no other."""


def listen(host: str, port: int) -> socket.socket:
    """Take the port, before a model is loaded in vain. Port 0 is any that is free.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host}, port {port}: {said}") from None
    return found


def check_exposure(listening: socket.socket, settings: Settings, *, without_key: bool = False) -> Settings:
    """The settings for where the service can be reached from.

    On the loopback without a key it answers to the loopback's names only: a web page could point another name at it.

    Raises:
        ConfigError: others could reach it, there is no key, and that was not said to be wanted.
    """
    address = str(listening.getsockname()[0])
    if settings.api_key is not None:
        return settings
    if is_loopback(address):
        return replace(settings, hosts=tuple(dict.fromkeys((*_LOOPBACK, address))))
    if not without_key:
        raise ConfigError(
            f"whoever reaches {address} could ask this service: set RMG_API_KEY to a key that clients must know, or "
            f"say --without-key"
        )
    return settings


class Server(uvicorn.Server):
    """Told to stop, it answers what it has let in, and whoever comes meanwhile that it is closing (503)."""

    def __init__(self, app: FastAPI, started: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=_IDLE
            )
        )
        self.gate: Gate = app.state.gate
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.gate.close()
        emptied = asyncio.ensure_future(self.gate.emptied())
        while not emptied.done() and not self.force_exit:
            await asyncio.wait({emptied}, timeout=0.1)
        emptied.cancel()
        if not self.force_exit:
            await asyncio.sleep(_LINGER)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # it stopped as it was told: nothing is left for them to end


def serve(
    subject: Subject,
    task: Task[Any] | None = None,
    settings: Settings | None = None,
    *,
    listening: socket.socket,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted; a second SIGINT ends at once.

    Args:
        listening: of `listen`.
        started: is called once requests are taken.

    Raises:
        ConfigError: as `create_app`, or the model does not answer at all.
    """
    app = create_app(subject, task, settings)
    app.state.service.try_out()
    Server(app, started).run(sockets=[listening])


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
