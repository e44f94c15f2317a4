"""A model as an HTTP service: `create_app` for programs, `rmg serve` for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rm_gallery.core.serve.settings import ServedMode, Settings

if TYPE_CHECKING:
    from rm_gallery.core.serve.app import create_app
    from rm_gallery.core.serve.run import serve

__all__ = ["ServedMode", "Settings", "create_app", "serve"]

_PLACES = {"create_app": "app", "serve": "run"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:  # on demand: they need the extra `serve`
        from importlib import import_module

        from rm_gallery.core.models.require import require

        require("serve", "fastapi", "uvicorn", "prometheus_client")
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
