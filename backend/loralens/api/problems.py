"""Every error as `application/problem+json` (RFC 9457): the one place where exceptions become answers."""

from __future__ import annotations

import errno
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from loralens.core.errors import LoraLensError
from loralens.endpoints.problem import ProblemBody, from_error, http_problem, problem, problem_bytes
from loralens.jobs.work import Reported

MEDIA_TYPE = "application/problem+json"
log = logging.getLogger("loralens.api")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_NO_ROOM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR,
     errno.EEXIST}
)  # fmt: skip

_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110, sections 15.5.14 and 15.5.21: the names that Python has from 3.13 on, on every Python."""


class Problem(BaseModel):
    """What every error answers."""

    type: str = Field(description="Identifies the kind of problem.", examples=["urn:loralens:problem:unknown_model"])
    title: str = Field(description="The kind of problem in words.", examples=["Unknown model"])
    status: int = Field(description="The HTTP status again.", examples=[404])
    detail: str = Field(description="What was given and what is allowed.", examples=["no model is called '8X'"])
    code: str = Field(description="Stable name for programs.", examples=["unknown_model"])
    field: str | None = Field(description="Which input is meant, if one is.", examples=["model"])
    hint: str | None = Field(description="What to try next.", examples=["did you mean 7b?"])


def respond(body: ProblemBody, headers: dict[str, str] | None = None) -> Response:
    """A problem as a response that no cache keeps."""
    return Response(
        problem_bytes(body),
        body["status"],
        media_type=MEDIA_TYPE,
        headers={"cache-control": "no-store"} | (headers or {}),
    )


async def _own(_: Request, error: Exception) -> Response:
    assert isinstance(error, LoraLensError)
    if isinstance(error, Reported):  # by a job's process, with the code and status of the original
        return respond(problem(**error.told))
    return respond(from_error(error))


async def _disconnected(request: Request, _: Exception) -> Response:
    # The client has left while it was sending: nobody reads this, and it is no fault.
    log.info("%s %s: the client left", request.method, request.url.path)
    return Response(status_code=400)


async def _storage(_: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if error.errno not in _NO_ROOM:
        raise error
    return respond(
        problem(
            503,
            "storage_full",
            f"the server's disk cannot be written: {error.strerror}",
            title="Storage cannot be written",
            hint="free some disk space, or set LORALENS_STATE_DIR (and TMPDIR) to folders that can be written",
        )
    )


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
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 405:
        headers["allow"] = ", ".join(_allowed(request))
    return respond(http_problem(error.status_code, detail, hint=hint), headers)


def _allowed(request: Request) -> list[str]:
    """Every method of the address: one may be spread over several routes.

    Source: RFC 9110, section 10.2.1.
    """
    known: list[str] | None = getattr(request.app.state, "methods", {}).get(request.url.path)
    if known is not None:  # also where the address would fit a later one with an id in its place
        return known
    scopes = ((method, {**request.scope, "method": method}) for method in _METHODS)
    routes = request.app.router.routes
    return [method for method, scope in scopes if any(route.matches(scope)[0] == Match.FULL for route in routes)]


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
    return respond(http_problem(500, "an unexpected error occurred in the server"))


def install(app: FastAPI) -> None:
    """Register the translation on an app."""
    app.add_exception_handler(LoraLensError, _own)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(OSError, _storage)
    app.add_exception_handler(Exception, _unexpected)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a route can answer."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": _PHRASES.get(status) or HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }
