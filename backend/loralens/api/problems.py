"""Every error as `application/problem+json` (RFC 9457): the one place where exceptions become answers."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from loralens.core.errors import LoraLensError
from loralens.core.jsontext import to_json

MEDIA_TYPE = "application/problem+json"
log = logging.getLogger("loralens.api")

# Errors of HTTP itself: status to (code, hint). The core's errors bring their own.
_HTTP_CODES: dict[int, tuple[str, str | None]] = {
    400: ("bad_request", 'send one JSON object, such as {"model": "7B"}'),
    403: ("forbidden", None),
    404: ("not_found", "all endpoints are listed in /api/openapi.json"),
    405: ("method_not_allowed", "all endpoints are listed in /api/openapi.json"),
    413: ("input_too_large", "send only config.json and the recipe; neither needs more than some kilobytes"),
    422: ("invalid_input", "the endpoint's inputs are described in /api/openapi.json"),
    415: ("unsupported_media_type", "send JSON with the header content-type: application/json"),
    500: ("internal_error", "this is a fault of the server, not of the request; its log says more"),
}


class Problem(BaseModel):
    """What every error answers."""

    type: str = Field(description="Identifies the kind of problem.", examples=["urn:loralens:problem:unknown_model"])
    title: str = Field(description="The kind of problem in words.", examples=["Unknown model"])
    status: int = Field(description="The HTTP status again.", examples=[404])
    detail: str = Field(description="What was given and what is allowed.", examples=["no model is called '8X'"])
    code: str = Field(description="Stable name for programs.", examples=["unknown_model"])
    field: str | None = Field(description="Which input is meant, if one is.", examples=["model"])
    hint: str | None = Field(description="What to try next.", examples=["did you mean 7b?"])


def problem(
    status: int, code: str, detail: str, *, title: str | None = None, field: str | None = None, hint: str | None = None
) -> dict[str, Any]:
    """The body of one problem."""
    return Problem(
        type=f"urn:loralens:problem:{code}",
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        field=field,
        hint=hint,
    ).model_dump()


def http_problem(status: int, detail: str, *, field: str | None = None, hint: str | None = None) -> dict[str, Any]:
    """The body for an error of HTTP itself (no route, wrong method, body too large, …)."""
    code, usual_hint = _HTTP_CODES.get(status, (f"http_{status}", None))
    return problem(status, code, detail, field=field, hint=hint or usual_hint)


def from_error(error: LoraLensError) -> dict[str, Any]:
    """The body for one of our own errors; job streams send the same body as `event: error`."""
    return problem(error.status, error.code, error.message, title=error.title, field=error.field, hint=error.hint)


def respond(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """A problem as a response that no cache keeps."""
    # A message may repeat what was sent: half a surrogate pair is then written as JSON's own escape.
    text = to_json(body).encode("utf-8", errors="backslashreplace")
    return Response(
        text, body["status"], media_type=MEDIA_TYPE, headers={"cache-control": "no-store"} | (headers or {})
    )


async def _own(_: Request, error: Exception) -> Response:
    assert isinstance(error, LoraLensError)
    return respond(from_error(error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: f"nothing is at {request.url.path}",
        405: f"{request.method} is not possible at {request.url.path}",
    }
    standard = error.detail in (None, "", HTTPStatus(error.status_code).phrase)
    detail = details.get(error.status_code, str(error.detail)) if standard else error.detail
    hint = None
    if error.status_code == 404 and request.app.state.page is None and not request.url.path.startswith("/api"):
        hint = "the page is not built; ./start.sh builds it"
    return respond(http_problem(error.status_code, detail, hint=hint), dict(error.headers or {}))


async def _validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    message = str(first["msg"])
    body = problem(
        422, "invalid_input", f"{'.'.join(where) or 'the request'}: {message}", title="Invalid input",
        field=".".join(where) or None, hint="the endpoint's inputs are described in /api/openapi.json",
    )  # fmt: skip
    return respond(body)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return respond(http_problem(500, "the server met an error that it did not expect"))


def install(app: FastAPI) -> None:
    """Register the translation on an app."""
    app.add_exception_handler(LoraLensError, _own)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _unexpected)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a route can answer."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }
