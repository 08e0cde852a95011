"""Reading what a client sent: JSON bodies within stated limits, and query strings as recipes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from loralens.core.errors import InvalidInput
from loralens.core.jsontext import from_json
from loralens.endpoints.reading import NotJson, read_object, read_pairs


async def read_json_object(request: Request) -> dict[str, object]:
    """The body as one JSON object.

    Only `application/json` is taken: a browser then asks first before another site's page may send it (CORS preflight).

    Raises:
        HTTPException: 400 not JSON, 413 too large, 415 another content type.
        InvalidInput: JSON, but no object, nested too deeply, or something that `from_json` refuses.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise HTTPException(415, f"the body must be JSON, got content-type {content_type[:60] or 'none'}")
    try:
        return read_object(await request.body(), request.app.state.settings.max_depth)
    except NotJson as error:
        raise HTTPException(400, str(error)) from None


JsonBody = Annotated[dict[str, object], Depends(read_json_object)]


class _JsonRequest(Request):
    async def json(self) -> Any:
        try:
            return from_json(await self.body())
        except InvalidInput as error:
            raise HTTPException(422, error.message) from None
        except (RecursionError, ValueError) as error:
            raise HTTPException(400, f"the body is not JSON: {str(error)[:200]}") from None


class JsonRoute(APIRoute):
    """For routes whose body is a model: their JSON is read as strictly as `JsonBody`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook for another class of requests."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return strict


async def read_query(request: Request) -> dict[str, object]:
    """A query string as the body of the same POST: `model`, `method` and the recipe's flat names.

    Raises:
        InvalidInput: no model, an unknown name, or a name given twice.
    """
    return read_pairs(request.query_params.multi_items())


Query = Annotated[dict[str, object], Depends(read_query)]
