"""Language models: chat models over an endpoint or in this process, weights, and the computations a judge needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rm_gallery.core.models.chat import ChatError, ChatModel, ChatResponse, Price, TokenLogprob, Totals
    from rm_gallery.core.models.openai_chat import OpenAIChatModel
    from rm_gallery.core.models.retry import Backoff

__all__ = [
    "Backoff",
    "ChatError",
    "ChatModel",
    "ChatResponse",
    "OpenAIChatModel",
    "Price",
    "TokenLogprob",
    "Totals",
]

_PLACES = {"OpenAIChatModel": "openai_chat", "Backoff": "retry"}


def __getattr__(name: str) -> Any:
    if name in __all__:  # on demand: pydantic and httpx take a quarter of a second
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PLACES.get(name, 'chat')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
