"""The content security policy: the page's own scripts and styles, by hash where they stand in a document."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

ENGINE = "/assets/engine-worker-"
"""Where the page's worker begins that computes in the browser (frontend/vite.config.ts)."""
ENGINE_POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'"
"""A worker is under the policy of its own answer: compiling WebAssembly is allowed there and nowhere else.

Source: CSP Level 3, section 4.2.3 (workers), and `'wasm-unsafe-eval'` in section 2.3.1.
"""
_INLINE = re.compile(rb"<(script|style)(?![^>]*\ssrc=)[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)


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
