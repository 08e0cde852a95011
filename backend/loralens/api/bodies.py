"""Reading what a client sent: JSON bodies within stated limits, and query strings as recipes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from loralens.core.errors import InvalidInput
from loralens.core.jsontext import depth, from_json
from loralens.core.question.flat import nested

MAX_QUERY_PARAMETERS = 100
SUBJECT_NAMES = ("model", "method", "gpu", "allocator")


async def read_json_object(request: Request) -> dict[str, Any]:
    """The body as one JSON object.

    Only `application/json` is taken: a browser then asks first before another site's page may send it (CORS preflight).

    Raises:
        HTTPException: 400 not JSON, 413 too large, 415 another content type.
        InvalidInput: JSON, but no object, nested too deeply, or something that `from_json` refuses.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise HTTPException(415, f"the body must be JSON, got content-type {content_type[:60] or 'none'}")
    limit = request.app.state.settings.max_depth
    try:
        value = from_json(await request.body())
    except RecursionError:
        raise _too_deep(limit) from None
    except InvalidInput:
        raise
    except ValueError as error:  # also UnicodeDecodeError, and an integer of more than 4300 digits
        raise HTTPException(400, f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"the body must be a JSON object, got {type(value).__name__}", hint='try {"model": "7B"}')
    if depth(value, limit) > limit:
        raise _too_deep(limit)
    return value


JsonObject = Annotated[dict[str, Any], Depends(read_json_object)]


class _JsonRequest(Request):
    async def json(self) -> Any:
        try:
            return from_json(await self.body())
        except InvalidInput as error:
            raise HTTPException(422, error.message) from None
        except (RecursionError, ValueError) as error:
            raise HTTPException(400, f"the body is not JSON: {str(error)[:200]}") from None


class JsonRoute(APIRoute):
    """For routes whose body is a model: their JSON is read as strictly as `JsonObject`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook for another class of requests."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return strict


async def read_query(request: Request) -> dict[str, Any]:
    """A query string as the body of the same POST: `model`, `method` and the recipe's flat names.

    Raises:
        InvalidInput: no model, an unknown name, or a name given twice.
    """
    pairs = request.query_params.multi_items()
    if len(pairs) > MAX_QUERY_PARAMETERS:
        raise InvalidInput(f"at most {MAX_QUERY_PARAMETERS} query parameters are read, got {len(pairs)}")
    flat: dict[str, str] = {}
    for name, value in pairs:
        if name in flat:
            raise InvalidInput(f"{name[:60]} is given twice", field=name[:60], hint=f"write {name[:60]} once")
        flat[name] = value
    body: dict[str, Any] = {name: flat.pop(name) for name in SUBJECT_NAMES if name in flat}
    methods = [part.strip() for part in body.pop("method", "").split(",") if part.strip()]
    if "model" not in body:
        raise InvalidInput("model is missing", field="model", hint="try model=7B; GET /api/models lists all names")
    if methods:
        body["methods"] = methods
    body["recipe"] = nested(flat)
    return body


Query = Annotated[dict[str, Any], Depends(read_query)]


def _too_deep(limit: int) -> InvalidInput:
    return InvalidInput(f"the body is nested deeper than {limit} levels", hint="send config.json as it is published")
