"""Who a browser is, in shared use: a random cookie, so that each visitor's list shows that visitor's own jobs."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from http.cookies import SimpleCookie

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, cookie_parser
from starlette.types import Scope

from loralens.limits import client_key

COOKIE = "loralens.visitor"
COOKIE_SECONDS = 365 * 24 * 3600
_SCOPE = "loralens.visitor"


@dataclass(frozen=True, slots=True)
class Visitor:
    """`name` is a hash of the cookie, which no list and no job shows; `address` is the client's for the limits."""

    name: str
    address: str


def with_visitor(scope: Scope, headers: Headers) -> str | None:
    """Note the visitor in the scope; returns the Set-Cookie header for one who is new."""
    secret = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
    new = not 20 <= len(secret) <= 64
    if new:
        secret = secrets.token_urlsafe(24)
    address = client_key(scope["client"][0]) if scope["client"] else ""
    scope[_SCOPE] = Visitor(hashlib.sha256(secret.encode()).hexdigest()[:32], address)
    if not new:
        return None
    cookie: SimpleCookie = SimpleCookie({COOKIE: secret})
    cookie[COOKIE].update({"max-age": str(COOKIE_SECONDS), "samesite": "lax", "path": "/"})
    cookie[COOKIE]["httponly"] = True
    if scope["scheme"] == "https":
        cookie[COOKIE]["secure"] = True
    return cookie[COOKIE].OutputString()


def visitor_of(connection: HTTPConnection) -> Visitor | None:
    """The visitor of a request; None where one person uses the server."""
    visitor: Visitor | None = connection.scope.get(_SCOPE)
    return visitor
