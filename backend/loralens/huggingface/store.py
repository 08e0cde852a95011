"""Configs that were fetched once, kept as files: a second question needs no network."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

MOST: Final = 200
FRESH: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """A config and when it was fetched (ISO 8601, UTC)."""

    config: dict[str, object]
    fetched_at: str

    @property
    def fresh(self) -> bool:
        """Whether it is young enough not to be fetched again when somebody asks for the Hub."""
        return datetime.now(UTC) - datetime.fromisoformat(self.fetched_at) < FRESH


class Store:
    """One file per model. A file that cannot be read counts as absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, model: str) -> StoredConfig | None:
        """What was fetched for this model, or None."""
        try:
            row = json.loads(self._path(model).read_text("utf-8"))
            kept = StoredConfig(row["config"], row["fetched_at"])
            return kept if isinstance(kept.config, dict) and datetime.fromisoformat(kept.fetched_at).tzinfo else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, model: str, config: dict[str, object]) -> StoredConfig:
        """Keep a config; the oldest ones go when there are too many. A full disk only means that nothing is kept."""
        kept = StoredConfig(config, datetime.now(UTC).isoformat(timespec="seconds"))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"model": model, "fetched_at": kept.fetched_at, "config": config}, file)
            Path(name).replace(self._path(model))
            files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in files[:-MOST]:
                path.unlink(missing_ok=True)
        except OSError:
            pass
        return kept

    def _path(self, model: str) -> Path:
        # Only checked names come here; `--` cannot be inside one, so two models never share a file.
        return self._folder / f"{model.lower().replace('/', '--')}.json"
