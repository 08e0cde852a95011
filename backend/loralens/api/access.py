"""The optional token: whoever was not given it gets nothing but the sign-in form and /api/health."""

from __future__ import annotations

import hmac
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

from loralens.api.problems import respond
from loralens.endpoints.problem import problem

COOKIE = "loralens.token"
COOKIE_SECONDS = 30 * 24 * 3600
OPEN = frozenset({"/api/health"})
_FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>LoRA Lens</title><h1>LoRA Lens</h1>
<p lang="zh-CN">这台服务器需要访问令牌。请向提供网址的人索取。</p>
<p>This server asks for a token. Whoever gave you the address has it.</p>
<form><label>令牌 · Token <input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>进入 · Open</button></form></html>"""


class Access:
    """Asks for the token in `Authorization: Bearer …`, in the cookie, or once as `?token=…` of a document."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    def answer(self, scope: Scope, headers: Headers) -> Response | None:
        """None when the request may pass."""
        path: str = scope["path"]
        if self._token is None or path in OPEN or self._known(headers):
            return None
        if path == "/api" or path.startswith("/api/"):
            body = problem(
                401,
                "unauthorized",
                "this server asks for a token, and none or another was sent",
                hint="send it as Authorization: Bearer …, or open the page with ?token=… once",
            )
            return respond(body, {"www-authenticate": "Bearer"})
        if "." in path.rpartition("/")[2]:
            return None  # the page's own scripts and pictures hold no secret
        return self._signed_in(scope) or HTMLResponse(_FORM, 401, {"cache-control": "no-store"})

    def _signed_in(self, scope: Scope) -> Response | None:
        """The same address without the token, which is then in a cookie."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), "")
        if scope["method"] not in ("GET", "HEAD") or not self._same(given):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # One slash at the start: two would name another host.
        target = "/" + quote(scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
        response = RedirectResponse(target, 303, {"cache-control": "no-store"})
        response.set_cookie(
            COOKIE, given, COOKIE_SECONDS, httponly=True, samesite="lax", secure=scope["scheme"] == "https"
        )
        return response

    def _known(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._same(bearer.strip()):
            return True
        return self._same(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))

    def _same(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given.encode(), self._token)
