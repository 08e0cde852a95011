"""uvicorn's HTTP protocol with bounds on what a client may keep: time, header bytes, connections.

A connection waits for its request's head, then for its body, then for the client to read the answer; each wait ends.
When all places are taken, whoever has been waiting longest to send a head leaves.
Source: uvicorn 0.54 has a limit for idle connections between requests (`timeout_keep_alive`) and none of these.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from loralens.api.problems import MEDIA_TYPE
from loralens.core.jsontext import to_json
from loralens.endpoints.problem import http_problem

HEAD_SECONDS: Final = 10
"""Assumption: the slowest honest client has sent its request's head by then."""
BODY_SECONDS: Final = 10
BODY_BYTES: Final = 10 * 1024
"""Within each BODY_SECONDS a client must send so many bytes or be done: 1 KiB/s, an assumption."""
READ_SECONDS: Final = 30
"""Assumption: so long may a client leave a full buffer of an answer unread."""
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 100


class BoundedProtocol(HttpToolsProtocol):
    """One connection; uvicorn's `limit_concurrency` is the bound over all of the process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._body_bytes = 0
        self.waits_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take a place, or that of the one who has been idle longest."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            idle = [c for c in self.connections if isinstance(c, BoundedProtocol) and c.waits_since and c is not self]
            if idle:
                leaving = min(idle, key=lambda connection: connection.waits_since or 0)
                self.connections.discard(leaving)  # its place is free now; it is told so in the loop's next turn
                leaving.transport.abort()
            else:
                return self._refuse(503, "all connections are taken")
        self._expect_head()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer outlives the connection."""
        self._stop()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes."""
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the head of the request is larger than {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """The first byte of a request: its head must follow in time."""
        super().on_message_begin()
        if self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is there: the body must follow in time."""
        self._stop()
        self._in_head, self._head_bytes, self._body_bytes = False, 0, 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse(431, f"a request may have {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes of them")
            return
        super().on_headers_complete()
        self._timer = self.loop.call_later(BODY_SECONDS, self._body_is_late)

    def on_body(self, body: bytes) -> None:
        """Nothing of a refused request is kept."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request is there."""
        self._stop()
        self._in_head = True
        if not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not read: not for ever."""
        super().pause_writing()
        self._reader_timer = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _expect_head(self) -> None:
        self.waits_since = self.loop.time()
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop(self) -> None:
        self.waits_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _body_is_late(self) -> None:
        # While the server itself does not read on, the client cannot send.
        if self._body_bytes < BODY_BYTES and not self.flow.read_paused:
            self.transport.abort()
            return
        self._body_bytes = 0
        self._timer = self.loop.call_later(BODY_SECONDS, self._body_is_late)

    def _refuse(self, status: int, detail: str) -> None:
        body = to_json(http_problem(status, detail)).encode()
        head = (
            f"HTTP/1.1 {status} Refused\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "retry-after: 5\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
