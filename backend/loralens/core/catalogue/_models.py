"""The models that are known by name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from loralens.core.catalogue._names import LONGEST_NAME, closest, key, shown
from loralens.core.errors import UnknownModel

DATA = Path(__file__).parent / "data"
INDEX = DATA / "models.json"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model: its architecture as the keys of its config.json, and where each statement comes from.

    Attributes:
        id: stable name in this catalogue, also the name of its file.
        hf_id: name on the Hugging Face Hub.
        family: `model_type` of the config.
        config: the architecture keys of config.json; each caller gets a dict of its own.
        published_parameters: total stated by the publisher, or None where no total is known. It can include
            parts that the config does not describe (a vision tower); `notes` says so.
        provenance: `published` (read from the file named in `source`), `partly recalled` or `recalled`
            (stated from memory and not looked up again).
    """

    id: str
    name: str
    hf_id: str
    publisher: str
    family: str
    aliases: tuple[str, ...]
    published_parameters: int | None
    published_parameters_source: str | None
    licence: str
    source: str
    provenance: str
    notes: str | None
    config: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON types, for an API answer."""
        return asdict(self) | {"aliases": list(self.aliases)}


def model(name: str) -> ModelEntry:
    """The model with this id, alias or Hugging Face id.

    >>> model("7B").name
    'Llama-2-7B'

    Raises:
        UnknownModel: no model has this name; the hint lists names that look like it.
    """
    index = _index()
    found = index.get(key(name)) if isinstance(name, str) and len(name) <= LONGEST_NAME else None
    if found is None:
        near = closest(name, index) if isinstance(name, str) else []
        raise UnknownModel(
            f"no model is called {shown(name)}",
            field="model",
            hint=(f"did you mean {', '.join(near)}? " if near else "")
            + "`loralens models` lists all names; any other model can be given by its config.json"
            + (", or looked up on the Hub (--from-hub)" if isinstance(name, str) and "/" in name else ""),
        )
    return _entry(found)


def models() -> tuple[ModelEntry, ...]:
    """Every model of the catalogue, family by family."""
    return tuple(_entry(id_) for id_ in dict.fromkeys(_index().values()))


def _entry(id_: str) -> ModelEntry:
    # Parsed anew for each caller: a config that one caller changes must not change another's answer.
    row = json.loads(_text(id_))
    return ModelEntry(**{**row, "aliases": tuple(row["aliases"])})


@cache
def _text(id_: str) -> str:
    return (DATA / "models" / f"{id_}.json").read_text(encoding="utf-8")


@cache
def _index() -> dict[str, str]:
    """Filed name → id, in the order of the catalogue. Only names in here ever become a path."""
    index: dict[str, str] = json.loads(INDEX.read_text(encoding="utf-8"))
    return index
