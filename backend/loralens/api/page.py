"""The built page: which of its documents answers an address, and files that were compressed while it was built.

The build renders the home page and Part 2 in both languages (frontend/vite/prerender.ts), so that a reader sees text and
numbers before a script has run. A document with default numbers is only ever sent for an address without settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

LANGUAGES = ("zh-CN", "en")
LANGUAGE_COOKIE = "loralens.lang"
#: Characters of an Accept-Language header that are read.
MOST_ACCEPTED = 1000
#: Words of an address that are no settings.
_FOREIGN = frozenset({"lang", "theme"})
#: Encodings the build may have made, the smallest first, with the ending of their files.
_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))


def install(app: FastAPI, folder: Path) -> None:
    """Serve the page in `folder`: documents by address and language, hashed files compressed, `index.html` otherwise."""
    files = Compressed(directory=folder)

    async def document(request: Request) -> Response:
        name = document_name(
            request.url.path,
            request.query_params.items(),
            request.cookies.get(LANGUAGE_COOKIE),
            request.headers.get("accept-language", ""),
        )
        if not (folder / name).is_file():
            name = "index.html"
        response = await files.get_response(name, request.scope)
        MutableHeaders(raw=response.raw_headers).add_vary_header("Cookie, Accept-Language")
        return response

    for path in ("/", "/part2"):
        app.add_route(path, document, methods=["GET", "HEAD"], include_in_schema=False)
    if (folder / "assets").is_dir():
        app.mount("/assets", Compressed(directory=folder / "assets"))
    app.frontend("/", directory=folder, fallback="index.html")


def document_name(path: str, query: Iterable[tuple[str, str]], remembered: str | None, accepted: str = "") -> str:
    """Name of the document for `/` or `/part2`.

    The language is the address's, else the remembered one, else the first that the browser accepts, else Chinese.

    >>> document_name("/part2", [], None), document_name("/part2", [("lang", "en"), ("r", "16")], None)
    ('pages/part2.zh-CN.html', 'pages/asked.en.html')
    """
    words = dict(query)
    language = next(
        (word for word in (words.get("lang"), remembered, preferred(accepted)) if word in LANGUAGES), LANGUAGES[0]
    )
    if path == "/":
        return f"pages/home.{language}.html"
    settings = words.keys() - _FOREIGN
    if "embed" in settings:
        # One section alone, without the text around it: nothing of it was rendered.
        return "index.html"
    return f"pages/{'asked' if settings else 'part2'}.{language}.html"


def preferred(header: str) -> str | None:
    """The language of ours that an Accept-Language header puts first; English for a reader of neither.

    >>> preferred("fr-CH, zh-TW;q=0.9, en;q=0.8"), preferred("de"), preferred("")
    ('zh-CN', 'en', None)

    Source: RFC 9110, section 12.5.4; the order of equals is the header's own, as browsers write it.
    """
    ranked = []
    for part in header[:MOST_ACCEPTED].lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((_weight(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
        if name and name != "*" and weight > 0:
            ranked.append((weight, name.partition("-")[0]))
    ranked.sort(key=lambda row: -row[0])
    known = {"zh": LANGUAGES[0], "en": LANGUAGES[1]}
    return next((known[name] for _, name in ranked if name in known), LANGUAGES[1] if ranked else None)


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _accepted(header: str) -> set[str]:
    """The encodings that an Accept-Encoding header allows by name."""
    parts = [part.strip().split(";") for part in header.lower().split(",")]
    return {name.strip() for name, *rest in parts if "".join(rest).replace(" ", "") not in ("q=0", "q=0.0")}


class Compressed(StaticFiles):
    """Static files, each as the smallest compressed copy beside it that the browser takes."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file or its copy; Content-Type is the file's own.

        Source: RFC 9110, sections 8.4 (Content-Encoding) and 12.5.5 (Vary).
        """
        copies = [(name, Path(f"{full_path}{ending}")) for name, ending in _ENCODINGS]
        there = [(name, copy) for name, copy in copies if copy.is_file()]
        accepted = _accepted(Headers(scope=scope).get("accept-encoding", ""))
        for name, copy in there:
            if name in accepted:
                response = super().file_response(copy, copy.stat(), scope, status_code)
                response.headers["content-encoding"] = name
                break
        else:
            response = super().file_response(full_path, stat_result, scope, status_code)
        if there:
            response.headers.add_vary_header("Accept-Encoding")
        return response
