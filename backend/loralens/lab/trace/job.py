"""A trace as a job: `run(spec)` with the body of `POST /api/traces`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loralens.lab.trace.answer import trace_events


def run(spec: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    """Events `progress` and `result`, see `answer.trace_events`."""
    yield from trace_events(spec)
