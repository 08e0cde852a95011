"""Answers kept as bytes: the same question again is answered before a router, a parser or the core are asked.

What these paths answer rests on the request and on this version alone, so an answer stays right as long as the server runs.
It carries an ETag made of its own bytes; who sends that back is answered 304. Kept within a bound in bytes, with the
compressed form beside the plain one once somebody has asked for it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

import loralens
from loralens.core.answer.kept import Kept

READ: Final = frozenset(
    f"/api/{name}"
    for name in ("memory", "parameters", "plan", "models", "families", "gpus", "course-numbers", "openapi.json")
)
ASKED: Final = frozenset(
    f"/api/{name}" for name in ("memory", "parameters", "plan", "lifetimes", "plans", "fit", "sweep", "serving")
)
"""Paths whose GET, and whose POST, is kept."""

MOST_BYTES: Final = 32 * 2**20
LARGEST_BODY: Final = 16 * 1024  # of a request that is looked up; larger ones are mostly configs that come once
LARGEST_ANSWER: Final = 2 * 2**20
SMALLEST_COMPRESSED: Final = 1024
LEVEL: Final = 4  # three times as fast as 9, and 4% larger on our answers

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its own headers, its bytes plain and, where that has been asked for, compressed, and its tag."""

    headers: Headers
    plain: bytes
    compressed: bytes | None
    tag: bytes

    @staticmethod
    def of(headers: Headers, body: bytes) -> Answer:
        """From what the application sent."""
        own = [(name, value) for name, value in headers if name not in (b"content-length", b"vary", b"etag")]
        tag = blake2b(loralens.__version__.encode() + body, digest_size=12).hexdigest()
        return Answer(own, body, None, f'W/"{tag}"'.encode())

    @property
    def compresses(self) -> bool:
        """Is it long enough to be compressed, and has not been?"""
        return self.compressed is None and len(self.plain) >= SMALLEST_COMPRESSED

    def with_compressed(self) -> Answer:
        """The same with its compressed form."""
        return replace(self, compressed=gzip.compress(self.plain, LEVEL, mtime=0))

    @property
    def weight(self) -> int:
        """Bytes that it takes."""
        return len(self.plain) + len(self.compressed or b"") + 1_000

    async def send(self, send: Send, *, compress: bool, known: Iterable[bytes]) -> None:
        """Send it, or only that nothing has changed."""
        common = [(b"etag", self.tag), (b"vary", b"accept-encoding"), (b"cache-control", b"no-cache")]
        if self.tag in known or b"*" in known:
            await send({"type": "http.response.start", "status": 304, "headers": common})
            await send({"type": "http.response.body", "body": b""})
            return
        body, encoding = self.plain, []
        if compress and self.compressed is not None:
            body, encoding = self.compressed, [(b"content-encoding", b"gzip")]
        headers = [*self.headers, *common, *encoding, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class KeptAnswers:
    """Stands between the guard and the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: Kept[Answer] = Kept(MOST_BYTES, lambda answer: answer.weight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_kept(scope["method"], scope["path"]):
            return await self._app(scope, receive, send)
        body, receive = (b"", receive) if scope["method"] == "GET" else await _whole(receive)
        if body is None:
            return await self._app(scope, receive, send)
        asked = _Asked(scope)
        key = (scope["method"] == "POST", scope["path"], scope["query_string"], asked.content_type, body)
        answer = self._kept.get(key)
        if answer is None:
            answer = await self._ask(asked.scope, receive, send)
            if answer is None:
                return None  # sent already
            if not (asked.gzip and answer.compresses):
                self._kept.put(key, answer)
        if asked.gzip and answer.compresses:
            answer = answer.with_compressed()
            self._kept.put(key, answer)
        return await answer.send(send, compress=asked.gzip, known=asked.known_tags)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> Answer | None:
        """The application's answer, if it is one to keep; anything else is passed on as it comes."""
        start: Message | None = None
        parts: list[bytes] = []
        size = 0
        passing = False

        async def collect(message: Message) -> None:
            nonlocal start, size, passing
            if passing:
                await send(message)
            elif message["type"] == "http.response.start":
                start = message
                if message["status"] != 200:
                    passing = True
                    await send(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > LARGEST_ANSWER:
                    passing = True
                    await send(start or {})
                    await send({**message, "body": b"".join(parts)})
                    parts.clear()

        await self._app(scope, receive, collect)
        if passing or start is None:
            return None
        return Answer.of(list(start["headers"]), b"".join(parts))


class _Asked:
    """What a request's headers say that matters here, and the scope with which the application is asked."""

    def __init__(self, scope: Scope) -> None:
        self.gzip = False
        self.content_type = b""
        self.known_tags: list[bytes] = []
        kept: Headers = []
        for name, value in scope["headers"]:
            if name == b"accept-encoding":
                self.gzip = b"gzip" in value
                continue  # the application answers plainly, and once
            if name == b"if-none-match":
                self.known_tags += [tag.strip() for tag in value.split(b",")]
            elif name == b"content-type":
                self.content_type = value
            kept.append((name, value))
        self.scope: Scope = {**scope, "headers": kept}


def _is_kept(method: str, path: str) -> bool:
    if method == "GET":
        return path in READ or path.startswith(("/api/models/", "/api/gpus/"))
    return method == "POST" and path in ASKED


async def _whole(receive: Receive) -> tuple[bytes | None, Receive]:
    """A short body, and a way to read it again; None for a long one, which is read on as it comes."""
    messages: list[Message] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or size > LARGEST_BODY:
            return None, _again(messages, receive)
        if not message.get("more_body", False):
            return b"".join(part.get("body", b"") for part in messages), _again(messages, receive)


def _again(messages: list[Message], receive: Receive) -> Receive:
    waiting: list[Any] = list(reversed(messages))

    async def read() -> Message:
        return waiting.pop() if waiting else await receive()

    return read
