"""From a name to a config: catalogue, local folder, what was fetched before, and the Hub when that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loralens.core import catalogue
from loralens.core.answer.answers import model_object
from loralens.core.errors import HubUnavailable, InvalidInput
from loralens.core.question.model import given
from loralens.huggingface.configs import read_config
from loralens.huggingface.download import download_config
from loralens.huggingface.folders import folder_config
from loralens.huggingface.ids import HUB_HOSTS, PASTE, model_id
from loralens.huggingface.named import by_name, listed, read_name, same_architecture
from loralens.huggingface.store import Store

if TYPE_CHECKING:
    from loralens.huggingface.shapes import ResolvedModel, Source


class Resolver:
    """Finds the config of a model that somebody names.

    Args:
        state: folder below which fetched configs are kept.
        models: folder whose subfolders are models to offer, or None.
        hub: the Hub's address, or None where looking up is switched off.
        seconds: how long one look-up may take in all.
    """

    def __init__(self, state: Path, models: Path | None, hub: str | None, seconds: float) -> None:
        self._store = Store(state / "huggingface")
        self._models = models
        self._hub = hub
        self._seconds = seconds
        host = urlsplit(hub).hostname if hub else None
        self._hosts = HUB_HOSTS | {host} if host else HUB_HOSTS

    async def resolve(self, text: Any, from_hub: bool = False) -> ResolvedModel:
        """The answer of `POST /api/models/resolve`.

        Raises:
            InvalidInput: no name of a model, or a config.json that is none.
            UnknownModel: found nowhere that was asked.
            GatedModel, HubUnavailable: see `download_config`; also when looking up is switched off.
            UnsupportedArchitecture: found, but a family that is not modelled.
        """
        text = read_name(text)
        here = self._here(text)
        if here is not None:
            return here
        if "/" not in text:
            return by_name(text)
        model = model_id(text, self._hosts)
        here = self._here(model)
        if here is not None:
            return here
        kept = self._store.get(model)
        if kept is not None and (kept.fresh or not from_hub):
            return _answer("cache", model, kept.config, kept.fetched_at)
        if not from_hub:
            return same_architecture(model)
        if self._hub is None:
            raise HubUnavailable("looking up models on the Hub is switched off here (LORALENS_HUB=off)", hint=PASTE)
        raw = await download_config(self._hub, model, self._seconds)
        try:
            config = read_config(raw, f"what the Hub sent for {model}")
        except InvalidInput as error:
            raise HubUnavailable(error.message, hint=PASTE) from None
        answer = _answer("hub", model, config)
        # Only what could be used is kept.
        answer["fetched_at"] = self._store.put(model, config).fetched_at
        return answer

    def _here(self, name: str) -> ResolvedModel | None:
        """A model that the catalogue or a local folder has under this very name; None for an address and any other name."""
        found = catalogue.read(name)
        if found is not None and not found.notes:
            return listed(found)
        folder = None if "://" in name else folder_config(self._models, name)
        return _answer("folder", *folder) if folder else None


def _answer(source: Source, name: str, config: dict[str, object], fetched_at: str | None = None) -> ResolvedModel:
    """The config under the name by which it was found, so that every later answer says which model it is about."""
    config = {**config, "_name_or_path": name}
    model = given(config)
    return {
        "source": source,
        "id": name,
        "model": model_object(model),
        "config": config,
        "fetched_at": fetched_at,
    }
