"""A job as lines of JSON: what it tells, then one line that says how it ended. Runs wherever a runner puts it."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import loralens
from loralens.core.errors import JobFailed, LoraLensError
from loralens.jobs import errors
from loralens.jobs.model import Event, Message, ToldError


class Reported(LoraLensError):
    """An error as the job's process told it; code, title and status are those of the original."""

    def __init__(self, told: ToldError) -> None:
        super().__init__(told["detail"], field=told["field"], hint=told["hint"])
        self.told = told


def lines(function: str, spec: Mapping[str, Any], stopped: Callable[[], bool]) -> Iterator[str]:
    """Run a job; yields {"event": {…}} for each thing it tells, then {"done"}, {"cancelled"} or {"error": {…}}.

    Args:
        function: "module:name" of a generator function.
        spec: what it receives.
        stopped: asked after each event; True ends the job as cancelled.
    """
    try:
        module, _, name = function.partition(":")
        events: Iterator[Any] = getattr(import_module(module), name)(spec)
        try:
            for event in events:
                yield line({"event": _checked(event)})
                if stopped():
                    yield line({"cancelled": True})
                    return
        finally:
            if hasattr(events, "close"):
                events.close()
    except Exception as error:
        told = errors.from_exception(error)
        if told is not error:
            traceback.print_exc()
        yield line({"error": errors.record(told)})
        return
    yield line({"done": True})


def line(message: Message) -> str:
    """One message; NaN and infinity are refused, since JSON has none."""
    return json.dumps(message, allow_nan=False, ensure_ascii=False)


def python_path() -> str:
    """PYTHONPATH for a process that is to find this package where this process found it."""
    source = str(Path(loralens.__file__).resolve().parent.parent)
    return os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part)


def _checked(event: Any) -> Event:
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise JobFailed(f"a job must yield dicts with a type, got {type(event).__name__}")
    return event
