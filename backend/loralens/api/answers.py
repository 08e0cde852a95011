"""An answer of the core as a response: the same bytes that the command line prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from loralens.core.jsontext import to_json


def respond(answer: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The answer as JSON, not passed through a second model that could drop or reorder fields."""
    return Response(to_json(answer), status, headers=dict(headers or {}), media_type="application/json")
