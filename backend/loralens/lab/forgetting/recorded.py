"""Runs of the experiment that ship with the package, so that the page teaches before anybody presses start.

    record = collect(events)          # plan, points, choice and result of one run: a JSON object
    recorded_runs()                   # those in `recorded/*.json`, the quick one first

Each carries its date, machine and versions. They are made by `loralens forgetting --full --output FILE`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

Event = Mapping[str, Any]


def collect(events: Iterable[Event]) -> dict[str, Any]:
    """One run as an object: {"plan", "points", "choice", "result"}; progress is dropped, numbers have six digits."""
    record: dict[str, Any] = {"plan": None, "points": [], "choice": None, "result": None}
    for event in events:
        kind = event["type"]
        if kind == "point":
            record["points"].append(rounded(event))
        elif kind in record:
            record[kind] = rounded(event)
    return record


def rounded(value: Any) -> Any:
    """Floats to six significant digits, all the way down."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


@lru_cache(maxsize=1)
def recorded_runs() -> tuple[dict[str, Any], ...]:
    """The runs in the package, shortest budget first."""
    runs = [json.loads(text) for text in _texts()]
    return tuple(sorted(runs, key=lambda run: run["result"]["budget_seconds"]))


def recorded_answer() -> dict[str, Any]:
    """`GET /api/forgetting/recorded`."""
    return {"runs": list(recorded_runs())}


def _texts() -> Iterator[str]:
    folder = resources.files(__package__).joinpath("recorded")
    if folder.is_dir():
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".json"):
                yield entry.read_text(encoding="utf-8")
