"""What a job is, and what it tells: plain records, shared by store, runners, manager and API."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypedDict

Event = dict[str, Any]
"""One thing that a job tells: `type`, and whatever belongs to it; JSON-able."""


class ToldError(TypedDict):
    """What a problem body needs."""

    code: str
    title: str
    status: int
    detail: str
    field: str | None
    hint: str | None


class RunCommand(TypedDict):
    """Which job a runner's process is to run."""

    function: str
    spec: dict[str, Any]


class Command(TypedDict, total=False):
    """A line to a runner's process; one of the two."""

    run: RunCommand
    cancel: bool


class Message(TypedDict, total=False):
    """A line from it; one of these."""

    ready: bool
    event: Event
    done: bool
    cancelled: bool
    error: ToldError


Status = Literal["queued", "running", "finished", "failed", "cancelled", "interrupted"]
ACTIVE: Final = ("queued", "running")
"""States from which a job still moves. `interrupted`: its server or runner died; what it had told is kept."""


def new_id() -> str:
    """A name that cannot be guessed (72 random bits): whoever has it may read the job, so a link shares a result."""
    return secrets.token_urlsafe(9)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What is to run. `function` is chosen by the program, never by a client.

    Args:
        kind: what the job is for people and filters, such as "benchmark".
        function: "module:name" of a generator function `run(spec: dict) -> Iterator[dict]`.
        spec: what the generator receives; JSON-able.
        device: "cpu", "cuda:0", "mps": jobs of one device run one after the other.
        visitor: in shared use, whose list shows it; "" elsewhere.
        address: in shared use, whose limit it counts for; forgotten when the job ends.
    """

    kind: str
    function: str
    spec: Mapping[str, Any]
    device: str = "cpu"
    id: str = field(default_factory=new_id)
    visitor: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One thing that a job told. `sequence` counts from 1 within the job and is the id of the server-sent event."""

    sequence: int
    type: str
    data: Mapping[str, Any]
    time_seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store knows it; times are seconds since 1970.

    Args:
        place: 0 when nothing is ahead of it on its device, None when it is no longer active.
        error: why it failed; None where it did not.
    """

    id: str
    kind: str
    device: str
    status: Status
    spec: Mapping[str, Any]
    created_seconds: float
    started_seconds: float | None
    ended_seconds: float | None
    error: ToldError | None
    last_event: int
    place: int | None = None

    @property
    def active(self) -> bool:
        return self.status in ACTIVE
