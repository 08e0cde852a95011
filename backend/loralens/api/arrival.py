"""A request's body as it arrives: counted against its limit, and read to its end where the answer is a refusal.

A client that is still sending when the connection closes is told "connection reset" and never sees the answer; most
read the answer only after all is sent. So what is refused is still read, and thrown away, within a bound.
Source: RFC 9112, section 9.6 (the connection is lost to a reset before the answer is read).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

DRAINED_BYTES: Final = 64 * 2**20
"""Assumption: larger bodies are no slip; their senders get the answer if they look, and the connection is closed."""
DRAINED_SECONDS: Final = 20


class Arrival:
    """The body of one request."""

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        headers = dict(scope["headers"])
        self._receive = receive
        self._limit = limit
        self._received = 0
        length = headers.get(b"content-length", b"0")
        self._announced = int(length) if length.isdigit() and len(length) < 16 else DRAINED_BYTES + 1
        # A client that waits for "100 Continue" has sent nothing, and will not.
        self._done: bool = headers.get(b"expect", b"").lower() == b"100-continue"
        if not self._announced and b"transfer-encoding" not in headers:
            self._done = True

    async def receive(self) -> Message:
        """For bodies that do not say how long they are: count while they come in."""
        message = await self._next()
        if self._received > self._limit:
            raise HTTPException(413, f"the body is larger than {self._limit} bytes")
        return message

    @property
    def is_endless(self) -> bool:
        """Whether more is announced than is read of a refused request."""
        return self._announced > DRAINED_BYTES

    async def drain(self) -> None:
        """Read what is still to come, as far as it is not more, or slower, than a slip of an honest client."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAINED_SECONDS):
                while not self._done and not self.is_endless and self._received <= DRAINED_BYTES:
                    await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._done = self._done or not message.get("more_body", False)
        return message
