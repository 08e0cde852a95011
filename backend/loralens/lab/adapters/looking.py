"""Looking into adapters that people bring, as jobs: what they sent is read and decomposed in the jobs' process.

Each yields `progress` once it has begun, and one `result`. Specs: {"state": folder of uploads, "registry": folder or
null} and what the function says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.files import read_adapter, read_adapter_bytes, weights_bytes
from loralens.lab.adapters.inspect import inspect_adapter
from loralens.lab.adapters.kinds import without_spectrum
from loralens.lab.adapters.resize import resize_adapter
from loralens.lab.adapters.shelf import Shelf

Event = dict[str, object]


def inspect(spec: Mapping[str, Any]) -> Iterator[Event]:
    """The report of the two files in the folder `upload`, of which nothing is kept; `energy` as in `inspect_adapter`.

    Of a type without a spectrum: what it is.
    """
    yield {"type": "progress"}
    other = without_spectrum(*_files(spec))
    yield _report(_uploaded(spec), None, spec) if other is None else {"type": "result", "answer": other.to_dict()}


def keep(spec: Mapping[str, Any]) -> Iterator[Event]:
    """The same, kept on the shelf under `label`."""
    yield {"type": "progress"}
    adapter = _uploaded(spec)
    yield _report(adapter, _shelf(spec).add(adapter, spec["label"]).id, spec)


def inspect_kept(spec: Mapping[str, Any]) -> Iterator[Event]:
    """The report of the adapter with the id `id`."""
    yield {"type": "progress"}
    yield _report(read_adapter(_shelf(spec).folder(spec["id"])), spec["id"], spec)


def resize(spec: Mapping[str, Any]) -> Iterator[Event]:
    """The adapter with the id `id` resized (`rank`, `energy`, `mixed` as in `resize_adapter`) and kept."""
    yield {"type": "progress"}
    shelf = _shelf(spec)
    old = shelf.find(spec["id"])
    result = resize_adapter(
        read_adapter(shelf.folder(old.id)), rank=spec["rank"], energy=spec["energy"], mixed=spec["mixed"]
    )
    kept = shelf.add(result.adapter, f"{old.label[:60]}, rank {result.rank}")
    yield {"type": "result", "answer": {"id": kept.id, **result.to_dict(), "file_bytes": kept.file_bytes}}


def report(adapter: Adapter, id_: str | None, energy: float) -> Event:
    """What the API answers of an adapter."""
    size = len(weights_bytes(adapter)) + len(adapter.config.to_json())
    return {"id": id_, **inspect_adapter(adapter, energy).to_dict(), "file_bytes": size}


def _report(adapter: Adapter, id_: str | None, spec: Mapping[str, Any]) -> Event:
    return {"type": "result", "answer": report(adapter, id_, spec["energy"])}


def _uploaded(spec: Mapping[str, Any]) -> Adapter:
    config, weights = _files(spec)
    return read_adapter_bytes(config.read_bytes(), weights.read_bytes())


def _files(spec: Mapping[str, Any]) -> tuple[Path, Path]:
    folder = Path(spec["upload"])
    return folder / "config", folder / "weights"


def _shelf(spec: Mapping[str, Any]) -> Shelf:
    registry = spec["registry"]
    return Shelf(Path(spec["state"]), None if registry is None else Path(registry))
