"""`GET /api/adapters/generate`: text by one or several adapters of the hub, token by token.

The stream: `event: token` (`GenerationToken`) for each row, then `event: done` (`GenerationEnd`) or `event: error`
(a problem). What is switched meanwhile does not change a running stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from loralens.api import hub_schemas as schemas
from loralens.api.hub_service import Service
from loralens.api.problems import documented

if TYPE_CHECKING:
    from loralens.lab.adapters.generation import Token

router = APIRouter(tags=["adapters"])


class Generation:
    """A checked request for a stream; a problem found here is answered with its own status."""

    def __init__(
        self,
        service: Service,
        prompt: Annotated[str, Query(max_length=4000)],
        adapters: Annotated[
            str | None,
            Query(max_length=4200, description="Names with commas, `base` for none; left out: the active one."),
        ] = None,
        tokens: Annotated[int, Query(ge=1, le=512)] = 48,
        temperature: Annotated[float, Query(ge=0, le=10)] = 0.0,
        seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> None:
        names = None if adapters is None else [None if n in ("", "base") else n for n in adapters.split(",")]
        self._context: AbstractContextManager[Iterator[Token]] = service.streaming(
            prompt, names, tokens=tokens, temperature=temperature, seed=seed
        )
        self.tokens = self._context.__enter__()

    def close(self) -> None:
        """Release the adapters that the stream pinned."""
        self._context.__exit__(None, None, None)


def checked_generation(generation: Annotated[Generation, Depends()]) -> Iterator[Generation]:
    """Closes the stream when the response has ended, however it ended."""
    try:
        yield generation
    finally:
        generation.close()


@router.get(
    "/adapters/generate",
    summary="Generate by one or several adapters, token by token",
    response_class=EventSourceResponse,
    responses={
        **documented(404, 409, 422, 503),
        298: {"model": schemas.GenerationToken, "description": "Data of `event: token`."},
        299: {"model": schemas.GenerationEnd, "description": "Data of `event: done`."},
    },
)
async def generate(
    generation: Annotated[Generation, Depends(checked_generation)],
) -> AsyncIterator[ServerSentEvent]:
    """Each adapter is a row of one batch: six answers cost little more than one."""
    began, count = time.perf_counter(), 0
    while (token := await asyncio.to_thread(next, generation.tokens, None)) is not None:
        count += 1
        yield ServerSentEvent(event="token", data=asdict(token))
    seconds = time.perf_counter() - began
    end = {"tokens": count, "seconds": seconds, "tokens_per_second": count / seconds if seconds > 0 else 0.0}
    yield ServerSentEvent(event="done", data=end)
