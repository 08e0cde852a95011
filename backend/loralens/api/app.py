"""The application: routes, error translation, limits, headers and the built page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import cast

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

import loralens
from loralens.api import page as built_page
from loralens.api import problems, routes
from loralens.api.compute import Compute
from loralens.api.guard import Guard
from loralens.api.kept_answers import KeptAnswers
from loralens.api.openapi import components
from loralens.api.stopping import stops_within
from loralens.core.jsontext import to_json
from loralens.limits import shared_limits
from loralens.settings import Settings

SCHEMA = "/api/openapi.json"
DESCRIPTION = """What full fine-tuning, LoRA and QLoRA cost in memory, explained byte by byte.
Sizes are integers in bytes, counts are integers. Errors are `application/problem+json` with a stable `code`."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """A new application.

    A route module may have a `lifespan(app)` context manager; it is entered when the server starts.
    """
    settings = settings or Settings()
    modules = [import_module(f"loralens.api.routes.{name}") for name in routes.ROUTERS]
    page = settings.page_directory()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.enter_context(stops_within(settings.shutdown_seconds))
            if settings.is_shared():
                app.state.limits = stack.enter_context(shared_limits(settings))
            app.state.compute = stack.enter_context(Compute())
            for module in modules:
                if hasattr(module, "lifespan"):
                    await stack.enter_async_context(cast(AbstractAsyncContextManager[None], module.lifespan(app)))
            yield

    app = FastAPI(
        title="LoRA Lens",
        version=loralens.__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url=None,  # `_document` has a route for it that does not keep the event loop
        # FastAPI's own documentation pages load their scripts from other servers.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        lifespan=lifespan,
        middleware=[
            Middleware(Guard, settings=settings, page=page),
            Middleware(KeptAnswers),
            # Level 4 is three times as fast as 9 and 4% larger on our answers; event streams pass uncompressed.
            Middleware(GZipMiddleware, minimum_size=1024, compresslevel=4),
        ],
    )
    app.state.settings = settings
    app.state.page = page
    problems.install(app)
    api = APIRouter(prefix="/api")
    for module in modules:
        api.include_router(module.router)
    app.include_router(api)
    app.state.methods = _methods(modules)
    _document(app)
    if page is not None:
        built_page.install(app, page)
    return app


def _methods(modules: list[ModuleType]) -> dict[str, list[str]]:
    """Every address and its methods, in the order in which they are defined."""
    found: dict[str, list[str]] = {}
    for module in modules:
        for route in module.router.routes:
            found.setdefault(f"/api{route.path}", []).extend(sorted(route.methods))
    return found


def _operation_id(route: APIRoute) -> str:
    return route.name


def _document(app: FastAPI) -> None:
    """Replace FastAPI's validation error schema by ours: every 422 is a problem."""
    generate = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            schema = generate()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = problems.Problem.model_json_schema()
            schemas |= components()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            unprocessable = problems.documented(422)[422]
            for path in schema["paths"].values():
                for operation in path.values():
                    if "422" in operation["responses"]:
                        operation["responses"]["422"] = unprocessable
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
    one_at_a_time = Lock()

    def schema_answer() -> Response:
        """In a thread: making the schema takes half a second."""
        with one_at_a_time:
            return Response(to_json(openapi()), media_type="application/json")

    app.add_api_route(SCHEMA, schema_answer, include_in_schema=False)
