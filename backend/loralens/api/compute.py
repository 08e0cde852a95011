"""Computation away from the process that answers.

The server's own process reads requests, finds kept answers, and serves the page; whatever has to be computed goes to worker
processes in one of two lanes. A lane has a number of workers, a bound on what waits and how long (429 beyond it, with Retry-After)
and a deadline (503); a client that leaves takes its work with it, unless it is done in a moment. Long work runs in a lane of its own, at a lower priority.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Final

from pebble import ProcessExpired, ProcessPool
from starlette.requests import Request
from starlette.responses import Response

from loralens.api import child
from loralens.api.problems import respond
from loralens.core.errors import Overloaded, TookTooLong
from loralens.endpoints.problem import from_error, problem

LONG: Final = frozenset({"fit", "lifetimes", "plans", "sweep", "check", "explain"})
_TRACKER: Final = "ignore:resource_tracker:UserWarning"
"""A server that is ended by force leaves its pools' semaphores to multiprocessing's tracker, which removes them and warns."""
GRACE_SECONDS: Final = 2.0
"""Assumption: about what a worker takes to start."""
_CLIENT_LEFT: Final = 499  # nobody reads it

Worker = Callable[[str, Any], bytes | child.Problem]
"""What runs in a worker process: `child.answer` of an endpoint's name, `child.snapshot` of a file's path."""


@dataclass(slots=True)
class Lane:
    """Workers for one kind of work. `typical_seconds` follows what the last answers took."""

    name: str
    workers: int
    most_waiting: int
    deadline_seconds: float
    niceness: int
    typical_seconds: float = 0.1
    under_way: int = 0
    _pool: ProcessPool | None = field(default=None, repr=False)
    _free: asyncio.Semaphore = field(init=False, repr=False)
    _ending: set[asyncio.Future[None]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        # The pool gets no more than it has workers for: work that is cancelled while it waits there takes a worker with it.
        self._free = asyncio.Semaphore(self.workers)

    def start(self) -> None:
        """Begin to start the workers."""
        if _TRACKER not in sys.warnoptions:
            sys.warnoptions.append(_TRACKER)
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(["loralens.api.child"])
        self._pool = ProcessPool(self.workers, initializer=child.begin, initargs=(self.niceness,), context=context)
        for _ in range(self.workers):
            self._pool.schedule(child.ready)

    def close(self) -> None:
        """Start no worker any more."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """End the workers, whatever they do."""
        self.close()
        if self._pool is not None:
            self._pool.join()

    def _schedule(self, by: Worker, name: str, body: dict[str, object]) -> Future[bytes | child.Problem]:
        assert self._pool is not None  # started with the server
        try:
            return self._pool.schedule(by, args=(name, body), timeout=self.deadline_seconds)
        except RuntimeError:  # the pool lost what it starts workers with: a new one
            self.stop()
            self.start()
            return self._pool.schedule(by, args=(name, body), timeout=self.deadline_seconds)

    def _overloaded(self, why: str) -> Overloaded:
        wait = math.ceil(self.typical_seconds * self.under_way / self.workers)
        return Overloaded(why, retry_after_seconds=min(max(wait, 1), 60))

    async def run(
        self, request: Request, name: str, body: Mapping[str, Any], by: Worker = child.answer
    ) -> bytes | child.Problem | None:
        """The answer or its problem; None when the client has left. `by` is given the name and the body.

        Raises:
            Overloaded: as much waits already as may, or this has waited as long as it may be computed for.
            TookTooLong: the deadline has passed, or the worker died at it.
        """
        if self.under_way >= self.workers + self.most_waiting:
            raise self._overloaded(f"{self.under_way} requests of this kind are computed or wait already")
        self.under_way += 1
        left = asyncio.ensure_future(_left(request))
        turn = asyncio.ensure_future(self._free.acquire())
        work: asyncio.Future[bytes | child.Problem] | None = None
        try:
            await asyncio.wait({turn, left}, return_when=asyncio.FIRST_COMPLETED, timeout=self.deadline_seconds)
            if left.done():
                return None
            if not turn.done():
                raise self._overloaded(f"this waited for {self.deadline_seconds:g} seconds and has not begun")
            begun = asyncio.get_running_loop().time()
            work = asyncio.wrap_future(self._schedule(by, name, dict(body)))
            waiting: set[asyncio.Future[Any]] = {work, left}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return None
            found = work.result()
            self.typical_seconds += (asyncio.get_running_loop().time() - begun - self.typical_seconds) / 8
            return found
        except (TimeoutError, CancelledError, ProcessExpired):
            raise TookTooLong(
                f"this takes longer than the {self.deadline_seconds:g} seconds that a request may be computed for",
                hint="ask for less at once, or run the same words through the command line, which has no deadline",
            ) from None
        finally:
            left.cancel()
            if work is not None and not work.done():
                ending = asyncio.ensure_future(self._ends(work))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            else:
                self._is_over(turn)

    def _is_over(self, turn: asyncio.Future[Any] | None) -> None:
        self.under_way -= 1
        if turn is not None and not turn.done():
            turn.cancel()  # it has not come: nothing to give back
        else:
            self._free.release()

    async def _ends(self, work: asyncio.Future[Any]) -> None:
        """Short work whose client has left is let to its end: a worker that is stopped costs more than what it would do."""
        try:
            await asyncio.wait([work], timeout=GRACE_SECONDS)
        finally:
            self._is_over(None)
            if not work.cancel() and not work.cancelled():
                work.exception()  # nobody wants to know


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Compute:
    """The lanes of one server."""

    def __init__(self, cores: int | None = None) -> None:
        cores = cores or os.cpu_count() or 1
        self.short = Lane("short", max(1, min(cores, 8)), most_waiting=256, deadline_seconds=15, niceness=0)
        self.long = Lane("long", max(1, min(cores // 2, 4)), most_waiting=12, deadline_seconds=30, niceness=10)

    def __enter__(self) -> Compute:
        for lane in (self.short, self.long):
            lane.start()
        return self

    def __exit__(self, *_: object) -> None:
        lanes = (self.short, self.long)
        for lane in lanes:
            lane.close()
        # A pool removes the semaphores that its workers share before it ends them: one that is just starting would look
        # for them in vain, and print so. A server has no other children of this kind.
        for worker in multiprocessing.active_children():
            worker.terminate()
        for lane in lanes:
            lane.stop()

    def lane_of(self, name: str, body: Mapping[str, Any]) -> Lane:
        """Where a request is computed."""
        return self.long if name in LONG or body.get("allocator") in ("simulated", "expandable") else self.short

    async def respond(
        self, request: Request, name: str, body: Mapping[str, Any], by: Worker = child.answer
    ) -> Response:
        """The answer to a request, or the problem with it. What another worker than `child.answer` does is long work."""
        lane = self.lane_of(name, body) if by is child.answer else self.long
        try:
            found = await lane.run(request, name, body, by)
        except Overloaded as error:
            return respond(from_error(error), {"retry-after": str(error.retry_after_seconds)})
        if found is None:
            return Response(status_code=_CLIENT_LEFT)
        if isinstance(found, bytes):
            return Response(found, media_type="application/json")
        status, code, title, message, field_, hint = found
        return respond(problem(status, code, message, title=title, field=field_, hint=hint))


async def of_snapshot(request: Request, path: str, set_up: Mapping[str, Any]) -> Response:
    """What a memory snapshot holds, which lies in a file of ours."""
    compute: Compute = request.app.state.compute
    return await compute.respond(request, path, set_up, child.snapshot)


async def computed(request: Request, name: str, body: Mapping[str, Any]) -> Response:
    """The answer of the server's lanes."""
    compute: Compute = request.app.state.compute
    return await compute.respond(request, name, body)
