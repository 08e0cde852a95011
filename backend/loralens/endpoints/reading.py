"""What a client sent, read as the body of a question: JSON within stated limits, and query strings as recipes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.jsontext import MAX_DEPTH, depth, from_json
from loralens.core.question.bodies import request_body
from loralens.core.question.flat import nested

MAX_QUERY_PARAMETERS: Final = 100
SUBJECT_NAMES: Final = ("model", "method", "gpu", "allocator")


class NotJson(ValueError):
    """The body is no JSON at all: an error of HTTP (400), not of the question."""


def read_object(raw: bytes, limit: int = MAX_DEPTH) -> dict[str, Any]:
    """The body as one JSON object.

    Raises:
        NotJson: it is no JSON.
        InvalidInput: JSON, but no object, nested too deeply, or something that `from_json` refuses.
    """
    try:
        value = from_json(raw)
    except RecursionError:
        raise _too_deep(limit) from None
    except InvalidInput:
        raise
    except ValueError as error:  # also UnicodeDecodeError, and an integer of more than 4300 digits
        raise NotJson(f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"the body must be a JSON object, got {type(value).__name__}", hint='try {"model": "7B"}')
    if depth(value, limit) > limit:
        raise _too_deep(limit)
    return value


def read_pairs(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """A query string's pairs as the body of the same POST: `model`, `method` and the recipe's flat names.

    Raises:
        InvalidInput: no model, an unknown name, or a name given twice.
    """
    if len(pairs) > MAX_QUERY_PARAMETERS:
        raise InvalidInput(f"at most {MAX_QUERY_PARAMETERS} query parameters are read, got {len(pairs)}")
    flat = _once(pairs)
    body: dict[str, Any] = {name: flat.pop(name) for name in SUBJECT_NAMES if name in flat}
    methods = [part.strip() for part in body.pop("method", "").split(",") if part.strip()]
    if "model" not in body:
        raise InvalidInput("model is missing", field="model", hint="try model=7B; GET /api/models lists all names")
    if methods:
        body["methods"] = methods
    body["recipe"] = nested(flat)
    return body


def read_named(body: dict[str, Any]) -> tuple[Any, bool]:
    """`model` and `from_hub` of the body of `POST /api/models/resolve`.

    Raises:
        InvalidInput: another field, or a `from_hub` that is neither true nor false.
    """
    request_body(body, ("model", "from_hub"), '{"model": "7B"}')
    from_hub = body.get("from_hub", False)
    if not isinstance(from_hub, bool):
        raise InvalidInput("from_hub must be true or false", field="from_hub")
    return body.get("model"), from_hub


def _once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in pairs:
        if name in flat:
            raise InvalidInput(f"{name[:60]} is given twice", field=name[:60], hint=f"write {name[:60]} once")
        flat[name] = value
    return flat


def _too_deep(limit: int) -> InvalidInput:
    return InvalidInput(f"the body is nested deeper than {limit} levels", hint="send config.json as it is published")
