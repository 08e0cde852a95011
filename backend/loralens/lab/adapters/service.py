"""The hub of one server: found or loaded when first asked for, with what has been measured on it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from loralens.core.errors import DeviceBusy, NotFound, Unavailable
from loralens.lab.adapters import example_requests, load_hub
from loralens.lab.adapters.base import LocalBase
from loralens.lab.adapters.generation import Token
from loralens.lab.adapters.hub import Hub
from loralens.lab.adapters.hub_answers import Switched
from loralens.lab.adapters.shelf import Shelf, model_folders
from loralens.lab.adapters.switching import measure_switching
from loralens.lab.adapters.tasks import TASKS, prompt_for
from loralens.lab.adapters.training import hub_folder, is_trained, recipe_named

PRESETS: Final = ("standard", "quick")
TINY: Final = "loralens-tiny"
MAX_STREAMS: Final = 8
MEASURE_SECONDS: Final = 3.0
_TITLES: Final = {task.name: task for task in TASKS}


class HubService:
    """One hub per server process. Methods may be called from any thread; torch runs in the caller's.

    Args:
        state: folder of the server's state; hubs and uploads lie below it.
        adapters: folder whose subfolders are adapters to offer, or None.
        models: folder whose subfolders are Hugging Face models to offer, or None.
    """

    def __init__(self, state: Path, adapters: Path | None = None, models: Path | None = None) -> None:
        self.hubs = state / "hubs"
        self.shelf = Shelf(state / "adapters", adapters)
        self._models = models
        self._hub: Hub | None = None
        self._preset: str | None = None
        self._held_out: dict[str, Any] | None = None
        self._lock = threading.RLock()
        self._streams = threading.BoundedSemaphore(MAX_STREAMS)
        self._measuring = threading.Lock()
        self._last: Switched | None = None
        self._measured: dict[str, Any] | None = None

    def hub(self) -> Hub:
        """The hub. Raises `Unavailable` while none is trained."""
        with self._lock:
            if self._hub is None:
                preset = next((p for p in PRESETS if is_trained(hub_folder(self.hubs, recipe_named(p)))), None)
                if preset is None:
                    raise Unavailable(
                        "the hub is not trained yet",
                        hint="POST /api/adapters/train trains base and adapters in minutes",
                    )
                folder = hub_folder(self.hubs, recipe_named(preset))
                self._use(load_hub(folder), preset)
                self._held_out = json.loads((folder / "hub.json").read_text("utf-8"))["held_out"]
            assert self._hub is not None
            return self._hub

    def use(self, base: str) -> Hub:
        """Put another base under the hub: the tiny one, or a model folder of the registry; adapters are unloaded."""
        with self._lock:
            if base == TINY:
                self._hub = None
                return self.hub()
            folder = model_folders(self._models).get(base)
            if folder is None:
                known = ", ".join([TINY, *model_folders(self._models)])
                raise NotFound(f"no model folder {base[:80]!r}", field="base", hint=f"offered: {known}")
            self._use(Hub(LocalBase(folder)), None)
            return self.hub()

    def state(self) -> dict[str, Any]:
        """What the page shows: base, adapters, what is active, bytes on disk, and what was measured."""
        try:
            hub = self.hub()
        except Unavailable:
            hub = None
        answer: dict[str, Any] = {
            "status": "ready" if hub else "not_trained",
            "preset": self._preset,
            "bases": [TINY, *model_folders(self._models)],
            "tasks": [{"name": task.name, "title": task.title, "title_zh": task.title_zh} for task in TASKS],
            "examples": [{"request": request, "prompt": prompt_for(request)} for request in example_requests()],
            "kept": [asdict(kept) for kept in self.shelf.list()],
            "base": None,
            "adapters": [],
            "active": None,
            "way": None,
            "storage": None,
            "last_switch": asdict(self._last) if self._last else None,
            "measured": self._measured,
        }
        if hub is None:
            return answer
        storage = hub.storage()
        return answer | {
            "base": {
                "name": hub.base.name,
                "parameters": hub.parameters,
                "file_bytes": storage.base_bytes,
                "sha256": hub.loaded_sha256,
            },
            "adapters": [
                {
                    "name": loaded.name,
                    "title": _TITLES[loaded.name].title if loaded.name in _TITLES else loaded.name,
                    "title_zh": _TITLES[loaded.name].title_zh if loaded.name in _TITLES else loaded.name,
                    "rank": loaded.rank,
                    "alpha": loaded.alpha,
                    "target_modules": _listed(loaded.target_modules),
                    "parameters": loaded.parameters,
                    "file_bytes": loaded.file_bytes,
                    "active": loaded.name == hub.active,
                    "held_out": self._checked(loaded.name),
                }
                for loaded in hub.adapters
            ],
            "active": hub.active,
            "way": hub.way,
            "storage": {
                "base_bytes": storage.base_bytes,
                "adapters_bytes": sum(storage.adapter_bytes.values()),
                "shared_bytes": storage.shared_bytes,
                "separate_bytes": storage.separate_bytes,
            },
        }

    def switch(self, adapter: str | None, way: str) -> Switched:
        """Switch the hub and remember how long it took."""
        self._last = self.hub().switch(adapter, way)
        return self._last

    def verify(self, prompt: str) -> dict[str, Any]:
        """See `Hub.verify`."""
        return asdict(self.hub().verify(prompt))

    def measure(self, seconds: float = MEASURE_SECONDS) -> dict[str, Any]:
        """Time every way of switching on the hub as it is; one measurement at a time."""
        if not self._measuring.acquire(blocking=False):
            raise DeviceBusy("switching is being measured already", hint="ask again in a few seconds")
        try:
            for event in measure_switching(self.hub(), seconds):
                if event["type"] == "result":
                    self._measured = {name: value for name, value in event.items() if name != "type"}
        finally:
            self._measuring.release()
        assert self._measured is not None
        return self._measured

    def load(self, id_: str, name: str) -> dict[str, Any]:
        """Load an adapter of the shelf into the hub."""
        loaded = self.hub().load(name, self.shelf.folder(id_))
        return {"name": loaded.name, "rank": loaded.rank, "file_bytes": loaded.file_bytes}

    def unload(self, name: str) -> None:
        """Take an adapter out of the hub."""
        self.hub().unload(name)

    @contextmanager
    def streaming(
        self, prompt: str, adapters: Sequence[str | None] | None, *, tokens: int, temperature: float, seed: int
    ) -> Iterator[Iterator[Token]]:
        """A stream of tokens; names and ranges are checked before the first one. At most eight run at once."""
        if not self._streams.acquire(blocking=False):
            raise DeviceBusy(f"{MAX_STREAMS} generations run already", hint="wait for one to end")
        try:
            stream = self.hub().stream(prompt, adapters, tokens=tokens, temperature=temperature, seed=seed)
            first = next(stream, None)  # raises here what is wrong with the request

            def tokens_of() -> Iterator[Token]:
                if first is not None:
                    yield first
                yield from stream

            try:
                yield tokens_of()
            finally:
                stream.close()  # type: ignore[attr-defined]  # a generator; releases the adapters it pinned
        finally:
            self._streams.release()

    def _checked(self, name: str) -> dict[str, int] | None:
        """Answers to requests kept out of training that were right to the letter, for a trained adapter."""
        if self._held_out is None or name not in self._held_out["right"]:
            return None
        return {"requests": self._held_out["requests"], "right": self._held_out["right"][name]}

    def _use(self, hub: Hub, preset: str | None) -> None:
        self._held_out = None
        self._hub, self._preset, self._last, self._measured = hub, preset, None, None


def _listed(targets: tuple[str, ...] | str) -> list[str]:
    return [targets] if isinstance(targets, str) else list(targets)
