"""What every request passes before a route sees it, and the headers that every response carries."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loralens.api import uploads
from loralens.api.problems import http_problem, respond
from loralens.settings import Settings

_INLINE = re.compile(rb"<(script|style)(?![^>]*\ssrc=)[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[^\s:\[\]]+?)\.?)(?::\d{1,5})?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def content_security_policy(page: Path | None, embed_origins: Iterable[str]) -> str:
    """Everything from this server only; the inline scripts and styles of the page's documents are allowed by hash.

    Source: CSP Level 3, section 2.3.1 (hash sources). Style *attributes* are open because charts position their
    marks with them; they cannot load or run anything.
    """
    # Dictionaries as ordered sets: the documents share their scripts.
    hashes: dict[str, dict[str, None]] = {"script": {}, "style": {}}
    for document in sorted(page.rglob("*.html")) if page is not None else ():
        for tag, text in _INLINE.findall(document.read_bytes()):
            digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
            hashes[tag.decode().lower()][f" 'sha256-{digest}'"] = None
    ancestors = " ".join(embed_origins) or "'none'"
    return (
        f"default-src 'self'; script-src 'self'{''.join(hashes['script'])}; "
        f"style-src 'self'{''.join(hashes['style'])}; "
        "style-src-attr 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        f"form-action 'self'; frame-ancestors {ancestors}"
    )


class Policy:
    """The content security policy of the page as it is built now: it may be built anew while the server runs."""

    def __init__(self, page: Path | None, embed_origins: Iterable[str]) -> None:
        self._page = page
        self._origins = tuple(embed_origins)
        self._built = self._age()
        self._text = content_security_policy(page, self._origins)

    def current(self) -> str:
        """The build writes index.html last, so its age tells whether the hashes still hold."""
        built = self._age()
        if built is not None and built != self._built:
            self._built, self._text = built, content_security_policy(self._page, self._origins)
        return self._text

    def _age(self) -> int | None:
        if self._page is None:
            return None
        try:
            return (self._page / "index.html").stat().st_mtime_ns
        except OSError:
            return None  # just being built


def host_allowed(host: str | None, names: Iterable[str]) -> bool:
    """Whether a Host header may name this server.

    A page of another site can point its own domain at 127.0.0.1 (DNS rebinding) and then read our answers; its
    requests still carry that domain as Host. IP addresses cannot be rebound, so they pass.

    >>> host_allowed("localhost:5173", ()), host_allowed("[::1]:5173", ()), host_allowed("evil.example", ())
    (True, True, False)
    """
    parsed = _HOST.fullmatch(host or "")
    if parsed is None:
        return False
    name = (parsed["address"] or parsed["name"]).lower()
    if name == "localhost" or name.endswith(".localhost") or name in {known.lower() for known in names}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses foreign hosts, cross-site writes and oversized bodies; adds security and cache headers."""

    def __init__(self, app: ASGIApp, settings: Settings, page: Path | None) -> None:
        self._app = app
        self._settings = settings
        self._policy = Policy(page, settings.embed_origins)
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
        policy = self._policy.current()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", policy)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", _cache_control(path, is_api, message["status"]))
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            return await respond(refusal)(scope, receive, send_with_headers)
        receive = _limited(receive, self._limit(path))
        if is_api:
            # A browser that opens an unknown /api path asks for HTML; it must get the 404, not the page.
            scope = {**scope, "headers": [*_without_accept(scope["headers"]), (b"accept", b"application/json")]}
        return await self._app(scope, receive, send_with_headers)

    def _limit(self, path: str) -> int:
        """Largest body in bytes; only uploads of adapters may be larger than a recipe with its config.json."""
        return (
            self._settings.max_adapter_bytes + uploads.OVERHEAD
            if path in uploads.PATHS
            else self._settings.max_body_bytes
        )

    def _refusal(self, scope: Scope) -> dict[str, object] | None:
        headers = Headers(scope=scope)
        if not host_allowed(headers.get("host"), self._settings.allowed_hosts):
            return http_problem(
                403,
                f"this server does not answer for the host {headers.get('host', '')[:100]!r}",
                field="host",
                hint="open it as localhost or by its IP address, or add the name to LORALENS_ALLOWED_HOSTS",
            )
        if scope["method"] not in _SAFE_METHODS and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return http_problem(403, "a page of another site may not change anything here", field="origin")
        length = headers.get("content-length", "0")
        limit = self._limit(scope["path"])
        if length.isdigit() and (len(length) > 15 or int(length) > limit):
            return http_problem(413, f"the body has {length[:30]} bytes, allowed are {limit}")
        return None


def _limited(receive: Receive, limit: int) -> Receive:
    """For bodies that do not say how long they are: count while they come in."""
    received = 0

    async def counting() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"the body is larger than {limit} bytes")
        return message

    return counting


def _without_accept(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name != b"accept"]


def _cache_control(path: str, is_api: bool, status: int) -> str:
    if is_api or status >= 400:
        return "no-store"
    # Vite puts the hash of the content into each name below assets/, so those files never change.
    return "public, max-age=31536000, immutable" if path.startswith("/assets/") else "no-cache"
