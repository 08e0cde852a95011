"""What every request passes before a route sees it, and the headers that every response carries."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loralens.api import uploads
from loralens.api.access import OPEN, Access
from loralens.api.arrival import Arrival
from loralens.api.hosts import from_another_site, host_allowed
from loralens.api.policy import ENGINE, ENGINE_POLICY, Policy
from loralens.api.problems import respond
from loralens.api.visitors import with_visitor
from loralens.endpoints.problem import ProblemBody, http_problem, problem
from loralens.limits import Limits, client_key
from loralens.settings import Settings

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_STREAMS = ("/events", "/generate")


class Guard:
    """Refuses foreign hosts and sites, strangers, those who ask too much, and oversized bodies; adds headers.

    The limits of clients are `app.state.limits`; without them nobody is counted.
    """

    def __init__(self, app: ASGIApp, settings: Settings, page: Path | None) -> None:
        self._app = app
        self._settings = settings
        self._policy = Policy(page, settings.embed_origins)
        self._access = Access(settings.token_text())
        self._headers = {
            "x-content-type-options": "nosniff",
            "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            "permissions-policy": "camera=(), microphone=(), geolocation=()",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path: str = scope["path"]
        is_api = path == "/api" or path.startswith("/api/")
        policy = ENGINE_POLICY if path.startswith(ENGINE) else self._policy.current()
        arrival = Arrival(scope, receive, self._limit(path))
        headers = Headers(scope=scope)
        cookie = with_visitor(scope, headers) if self._settings.is_shared() else None

        refused = False

        async def send_with_headers(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.setdefault("content-security-policy", policy)
                for name, value in self._headers.items():
                    answer.setdefault(name, value)
                answer.setdefault("cache-control", _cache_control(path, is_api, message["status"]))
                if cookie is not None and (scope["method"] == "POST" or not path.startswith(("/api/", "/assets/"))):
                    answer.append("set-cookie", cookie)
                if message["status"] >= 400 and arrival.is_endless:
                    answer["connection"] = "close"
                refused = message["status"] >= 400
            elif refused and not message.get("more_body", False):
                # The answer is on its way to those who look; its end waits for those who look when all is sent.
                await send({**message, "more_body": True})
                await arrival.drain()
                message = {"type": "http.response.body"}
            await send(message)

        refusal = self._refusal(scope, headers, is_api)
        if refusal is not None:
            return await refusal(scope, receive, send_with_headers)
        limits: Limits | None = getattr(scope["app"].state, "limits", None) if is_api and path not in OPEN else None
        if limits is None:
            return await self._pass(scope, arrival, send_with_headers, headers, is_api)
        client, stream = client_key(scope["client"][0] if scope["client"] else ""), path.endswith(_STREAMS)
        too_much = limits.admit(client, stream=stream)
        if too_much is not None:
            body = problem(429, "too_many_requests", too_much.detail, hint="wait as long as Retry-After says")
            answer = respond(body, {"retry-after": str(math.ceil(too_much.seconds))})
            return await answer(scope, receive, send_with_headers)
        try:
            return await self._pass(scope, arrival, send_with_headers, headers, is_api)
        finally:
            limits.left(client, stream=stream)

    async def _pass(self, scope: Scope, arrival: Arrival, send: Send, headers: Headers, is_api: bool) -> None:
        stranger = self._access.answer(scope, headers)
        if stranger is not None:
            return await stranger(scope, arrival.receive, send)
        if is_api:
            # A browser that opens an unknown /api path asks for HTML; it must get the 404, not the page.
            scope = {**scope, "headers": [*_without_accept(scope["headers"]), (b"accept", b"application/json")]}
        return await self._app(scope, arrival.receive, send)

    def _limit(self, path: str) -> int:
        """Largest body in bytes; only uploads of files may be larger than a recipe with its config.json."""
        if path in uploads.ADAPTERS:
            return self._settings.max_adapter_bytes + uploads.OVERHEAD
        if path in uploads.SNAPSHOTS:
            return self._settings.max_snapshot_bytes + uploads.OVERHEAD
        return self._settings.max_body_bytes

    def _refusal(self, scope: Scope, headers: Headers, is_api: bool) -> Response | None:
        return next((respond(body) for body in self._refusals(scope, headers, is_api)), None)

    def _refusals(self, scope: Scope, headers: Headers, is_api: bool) -> Iterable[ProblemBody]:
        hosts = headers.getlist("host")
        if len(hosts) > 1:
            yield http_problem(400, f"the request names {len(hosts)} hosts", field="host", hint="send one Host header")
        elif not host_allowed(headers.get("host"), self._settings.allowed_hosts):
            yield http_problem(
                403,
                f"this server does not answer for the host {headers.get('host', '')[:100]!r}",
                field="host",
                hint="open it as localhost or by its IP address, or add the name to LORALENS_ALLOWED_HOSTS",
            )
        writes = scope["method"] not in _SAFE_METHODS
        if (writes or (is_api and not _is_followed_link(headers))) and from_another_site(
            headers, self._settings.allowed_hosts
        ):
            what = "change anything" if writes else "ask for anything"
            yield http_problem(403, f"a page of another site may not {what} here", field="origin")
        length = headers.get("content-length", "0")
        limit = self._limit(scope["path"])
        if length.isdigit() and (len(length) > 15 or int(length) > limit):
            yield http_problem(413, f"the body has {length[:30]} bytes, allowed are {limit}")


def _is_followed_link(headers: Headers) -> bool:
    """A person who follows a link to an answer sees it in a window of its own; a picture or a frame is no person."""
    return headers.get("sec-fetch-dest") == "document"


def _without_accept(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name != b"accept"]


def _cache_control(path: str, is_api: bool, status: int) -> str:
    if is_api or status >= 400:
        return "no-store"
    # Vite puts the hash of the content into each name below assets/, so those files never change.
    return "public, max-age=31536000, immutable" if path.startswith("/assets/") else "no-cache"
