"""Every refusal of the service: a status, a sentence, and OpenAI's shape around it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from rm_gallery.core.errors import RMGalleryError
from rm_gallery.core.models.batching import Closing, Full
from rm_gallery.core.serve.schemas import ErrorResponse

_TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
_LONGEST = 300


class Refusal(RMGalleryError):
    """A request that is not answered: `status` and the sentence."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def response(self) -> Response:
        error = {
            "message": str(self),
            "type": _TYPES.get(self.status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": error}, self.status, headers)


UNAUTHORIZED = Refusal(401, "a valid API key is needed: Authorization: Bearer KEY")
"""The one answer to whoever does not know the key, whatever was asked."""


def handle_errors(app: FastAPI) -> None:
    """Let the app answer every error as a `Refusal` does."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return error.response()

    async def full(request: Request, error: Exception) -> Response:
        assert isinstance(error, Full)
        return Refusal(429, str(error), retry_after=error.retry_after).response()

    async def closing(request: Request, error: Exception) -> Response:
        return shutting_down().response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part != "body"]
        said = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            place, said = [], "the body is not JSON"
        elif not place and "json" not in request.headers.get("content-type", ""):
            said = "the body is to be JSON: send the header Content-Type: application/json with it"
        message = f"{'.'.join(place)}: {said}" if place else said
        more = len(error.errors()) - 1
        message = message[:_LONGEST] + (f" (and {more} more)" if more else "")
        return Refusal(422, message, param=".".join(place)[:_LONGEST] or None).response()

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: "there is nothing at this path", 405: "this path is not asked by this method"}
        found = Refusal(error.status_code, said.get(error.status_code, str(error.detail))).response()
        found.headers.update(error.headers or {})
        return found

    async def broken(request: Request, error: Exception) -> Response:
        return Refusal(500, "the service failed; its log says how").response()

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(Full, full)
    app.add_exception_handler(Closing, closing)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, broken)


def shutting_down() -> Refusal:
    return Refusal(503, "the service is shutting down: ask another, or later", retry_after=5)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of an operation in OpenAPI: those that every request may meet, and `statuses`."""
    said = {
        400: "What cannot be asked of this model.",
        401: "No key, or a wrong one.",
        403: "Addressed by a name that is not the service's own.",
        405: "Another method.",
        408: "The body did not come in time.",
        413: "A body, or a number of items, beyond the limits.",
        422: "A body that is not of this form.",
        429: "No room in the queue; Retry-After says when to come again.",
        500: "A defect of the service.",
        503: "The service is shutting down.",
    }
    return {
        status: {"model": ErrorResponse, "description": said[status]}
        for status in sorted({401, 403, 405, 500, *statuses})
    }
