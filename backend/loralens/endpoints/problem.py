"""The body of an error: `application/problem+json` (RFC 9457), as every surface writes it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, TypedDict

from loralens.core.errors import LoraLensError
from loralens.core.jsontext import to_json

# Errors of HTTP itself: status to (code, hint). The core's errors bring their own.
_HTTP_CODES: Final[dict[int, tuple[str, str | None]]] = {
    400: ("bad_request", 'send one JSON object, such as {"model": "7B"}'),
    403: ("forbidden", None),
    404: ("not_found", "all endpoints are listed in /api/openapi.json"),
    405: ("method_not_allowed", "all endpoints are listed in /api/openapi.json"),
    413: ("input_too_large", "send only config.json and the recipe; neither needs more than some kilobytes"),
    422: ("invalid_input", "the endpoint's inputs are described in /api/openapi.json"),
    415: ("unsupported_media_type", "send JSON with the header content-type: application/json"),
    500: ("internal_error", "this is a fault of the server, not of the request; its log says more"),
}


class ProblemBody(TypedDict):
    """The fields of RFC 9457, a stable code, and what to change."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None
    hint: str | None


def problem(
    status: int, code: str, detail: str, *, title: str | None = None, field: str | None = None, hint: str | None = None
) -> ProblemBody:
    """The body of one problem."""
    return {
        "type": f"urn:loralens:problem:{code}",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "field": field,
        "hint": hint,
    }


def http_problem(status: int, detail: str, *, field: str | None = None, hint: str | None = None) -> ProblemBody:
    """The body for an error of HTTP itself (no route, wrong method, body too large, …)."""
    code, usual_hint = _HTTP_CODES.get(status, (f"http_{status}", None))
    return problem(status, code, detail, field=field, hint=hint or usual_hint)


def from_error(error: LoraLensError) -> ProblemBody:
    """The body for one of our own errors; job streams send the same body as `event: error`."""
    return problem(error.status, error.code, error.message, title=error.title, field=error.field, hint=error.hint)


def problem_bytes(body: ProblemBody) -> bytes:
    """As it is sent. A message may repeat what was sent: half a surrogate pair is then written as JSON's own escape."""
    return to_json(body).encode("utf-8", errors="backslashreplace")
