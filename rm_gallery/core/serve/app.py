"""`create_app`: a model as an HTTP service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from rm_gallery import __version__
from rm_gallery.core.judge.subject import Subject
from rm_gallery.core.serve import openrlhf
from rm_gallery.core.serve.chat import ChatCompletion, ChatRequest
from rm_gallery.core.serve.errors import documented, handle_errors
from rm_gallery.core.serve.guard import OPEN, Gate, Guard
from rm_gallery.core.serve.metrics import Measured
from rm_gallery.core.serve.page import load_page
from rm_gallery.core.serve.schemas import (
    CompareRequest,
    CompareResponse,
    Health,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
    ServedModels,
)
from rm_gallery.core.serve.service import Service
from rm_gallery.core.serve.settings import Settings
from rm_gallery.core.tasks.base import Task

_ASKED = documented(400, 408, 413, 422, 429, 503)


def create_app(subject: Subject, task: Task[Any] | None = None, settings: Settings | None = None) -> FastAPI:
    """The service of one model; `app.state.gate` and `app.state.service` are its own.

    Args:
        subject: `Candidate(…).open()`.
        task: what a judge is asked. None: what its folder says; a scalar model has none.

    Raises:
        ConfigError: a judge without a task, or one that cannot be asked in the mode of the settings.
    """
    settings = settings or Settings()
    service, gate = Service(subject, task, settings), Gate()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    # no /docs: it loads its code from another host
    app = FastAPI(
        title="rm_gallery",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )
    app.state.service, app.state.gate = service, gate
    handle_errors(app)
    # the last one added stands in front
    app.add_middleware(Guard, settings=settings, gate=gate)
    paths: set[str] = set()
    app.add_middleware(Measured, metrics=service.metrics, known=paths)
    _add_questions(app, service)
    _add_watching(app, service, gate)
    paths.update(route.path for route in app.routes if isinstance(route, Route))
    app.openapi = lambda: _openapi(app, settings)  # type: ignore[method-assign]
    return app


def _add_questions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/score", responses=_ASKED, tags=["judge"], summary="Score responses")
    async def score(asked: ScoreRequest, request: Request) -> ScoreResponse:
        return await service.score(asked, request)

    @app.post("/v1/compare", responses=_ASKED, tags=["judge"], summary="Compare pairs of responses")
    async def compare(asked: CompareRequest, request: Request) -> CompareResponse:
        """Both orders of each pair are asked; of a judge that scores, both responses."""
        return await service.compare(asked, request)

    @app.post("/v1/rank", responses=_ASKED, tags=["judge"], summary="Rank responses")
    async def rank(asked: RankRequest, request: Request) -> RankResponse:
        """By their scores, or by their wins over each other in both orders."""
        return await service.rank(asked, request)

    @app.post("/v1/chat/completions", responses=_ASKED, tags=["judge"], summary="Talk to the judge")
    async def chat(asked: ChatRequest, request: Request) -> ChatCompletion:
        """As OpenAI's, by greedy decoding."""
        return await service.chat(asked, request)

    @app.post(openrlhf.PATH, responses=_ASKED, tags=["rewards"], summary="Rewards for OpenRLHF")
    async def reward(asked: openrlhf.RewardRequest, request: Request) -> openrlhf.RewardResponse:
        """Its `--remote_rm_url`."""
        return await service.reward(asked, request)


def _add_watching(app: FastAPI, service: Service, gate: Gate) -> None:
    page, headers = load_page()

    @app.get("/v1/models", responses=documented(), tags=["service"], summary="The model")
    async def models() -> ServedModels:
        return ServedModels(data=[service.model])

    @app.get(
        "/healthz",
        responses={503: {"model": Health, "description": "It is shutting down."}, **documented()},
        tags=["service"],
        summary="Whether requests are taken",
    )
    async def health() -> Health:
        if gate.closed:
            return JSONResponse({"status": "closing"}, 503)  # type: ignore[return-value]
        return Health(status="ok")

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented()},
        tags=["service"],
        summary="Figures for Prometheus",
    )
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)


def _openapi(app: FastAPI, settings: Settings) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        if settings.api_key is not None:
            bearer = {"type": "http", "scheme": "bearer"}
            schema.setdefault("components", {})["securitySchemes"] = {"key": bearer}
            schema["security"] = [{"key": []}]
            for path in set(OPEN) & set(schema["paths"]):
                for operation in schema["paths"][path].values():
                    operation["security"] = []
        app.openapi_schema = schema
    return app.openapi_schema
