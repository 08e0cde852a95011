"""Adapters that people bring: uploads kept under an id made from their content, and folders named in the settings.

Nothing a client sends becomes part of a path. An upload's id is a hash of its bytes; a local folder is found by
comparing names with what the registry folder lists.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loralens.core.errors import InputTooLarge, InvalidInput, NotFound
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE, stored_bytes

if TYPE_CHECKING:  # torch comes with it; who lists, downloads or deletes needs none
    from loralens.lab.adapters.adapter import Adapter

MAX_KEPT: Final = 64
MAX_KEPT_BYTES: Final = 2 * 2**30
MAX_LABEL: Final = 80


@dataclass(frozen=True, slots=True)
class ShelvedAdapter:
    """An adapter on the shelf; `source` is "upload" or "registry"."""

    id: str
    label: str
    source: str
    file_bytes: int


class Shelf:
    """Uploaded adapters below `root`, and read-only ones in the subfolders of `registry`."""

    def __init__(self, root: Path, registry: Path | None = None) -> None:
        self._root = root
        self._registry = registry
        self._lock = threading.Lock()

    def list(self) -> list[ShelvedAdapter]:
        """Everything on the shelf, uploads first."""
        uploads = [
            ShelvedAdapter(path.name, self._label(path.name), "upload", stored_bytes(path))
            for path in self._uploads().values()
        ]
        local = [ShelvedAdapter(name, name, "registry", stored_bytes(path)) for name, path in self._local().items()]
        return uploads + local

    def add(self, adapter: Adapter, label: str = "") -> ShelvedAdapter:
        """Keep an adapter; the same content is kept once.

        Raises: `InputTooLarge` when the shelf is full, `InvalidInput` for a label that is not one line of text.
        """
        from loralens.lab.adapters.files import weights_bytes, write_adapter

        label = " ".join(label.split()) or f"rank {adapter.config.rank}"
        if len(label) > MAX_LABEL or not label.isprintable():
            raise InvalidInput(f"a label is one line of at most {MAX_LABEL} characters", field="label")
        digest = hashlib.sha256(adapter.config.to_json() + weights_bytes(adapter)).hexdigest()[:16]
        with self._lock:
            there = self._uploads()
            if digest not in there:
                used = sum(stored_bytes(path) for path in there.values())
                if len(there) >= MAX_KEPT or used + adapter.tensor_bytes > MAX_KEPT_BYTES:
                    raise InputTooLarge(
                        f"the shelf holds {len(there)} adapters of {used} bytes; allowed are {MAX_KEPT} and "
                        f"{MAX_KEPT_BYTES}",
                        hint="delete one first",
                    )
                write_adapter(adapter, self._root / digest)
            (self._root / f"{digest}.json").write_text(json.dumps({"label": label}, ensure_ascii=False), "utf-8")
        return ShelvedAdapter(digest, label, "upload", stored_bytes(self._root / digest))

    def folder(self, id_: str) -> Path:
        """The folder of an adapter on the shelf; `NotFound` for an id that is not listed."""
        found = self._uploads().get(id_) or self._local().get(id_)
        if found is None:
            raise NotFound(f"no adapter {id_[:80]!r} is kept here", field="id", hint="GET /api/adapters lists them")
        return found

    def find(self, id_: str) -> ShelvedAdapter:
        """One entry of `list`."""
        folder = self.folder(id_)
        return next(
            kept
            for kept in self.list()
            if kept.id == id_ and (kept.source == "upload") == (folder.parent == self._root)
        )

    def remove(self, id_: str) -> None:
        """Delete an upload; the registry folder is never written."""
        with self._lock:
            folder = self._uploads().get(id_)
            if folder is None:
                raise NotFound(f"no upload {id_[:80]!r} is kept here", field="id")
            shutil.rmtree(folder)
            (self._root / f"{id_}.json").unlink(missing_ok=True)

    def _label(self, id_: str) -> str:
        try:
            return str(json.loads((self._root / f"{id_}.json").read_text("utf-8"))["label"])
        except (OSError, ValueError, KeyError):
            return id_

    def _uploads(self) -> dict[str, Path]:
        return {path.name: path for path in _adapter_folders(self._root) if len(path.name) == 16}

    def _local(self) -> dict[str, Path]:
        return {} if self._registry is None else {path.name: path for path in _adapter_folders(self._registry)}


def model_folders(registry: Path | None) -> dict[str, Path]:
    """Hugging Face model folders (config.json and safetensors) directly below the registry folder, by name."""
    if registry is None or not registry.is_dir():
        return {}
    return {
        path.name: path
        for path in sorted(registry.iterdir())
        if path.is_dir()
        and not path.is_symlink()
        and (path / "config.json").is_file()
        and any(path.glob("*.safetensors"))
    }


def _adapter_folders(root: Path) -> list[Path]:
    # Links are left out: they could point anywhere.
    if not root.is_dir():
        return []
    return [
        path
        for path in sorted(root.iterdir())
        if not path.name.startswith(".")
        and path.is_dir()
        and not path.is_symlink()
        and (path / CONFIG_FILE).is_file()
        and (path / WEIGHTS_FILE).is_file()
    ]
