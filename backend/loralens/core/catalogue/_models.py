"""The models that are known by name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from loralens.core.catalogue.shapes import ModelDetail


DATA = Path(__file__).parent / "data"
INDEX = DATA / "models.json"
COUNTS = DATA / "counts.json"


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
    config: dict[str, object]

    def to_dict(self) -> ModelDetail:
        """The row as JSON types, for an API answer."""
        return cast("ModelDetail", asdict(self) | {"aliases": list(self.aliases), "parameters": counts()[self.id]})


def entry(id_: str) -> ModelEntry:
    """The model with this id, parsed anew for each caller: a config that one changes must not change another's answer."""
    row = json.loads(_text(id_))
    return ModelEntry(**{**row, "aliases": tuple(row["aliases"])})


def models() -> tuple[ModelEntry, ...]:
    """Every model of the catalogue, family by family."""
    return tuple(entry(id_) for id_ in dict.fromkeys(index().values()))


@cache
def _text(id_: str) -> str:
    return (DATA / "models" / f"{id_}.json").read_text(encoding="utf-8")


@cache
def counts() -> dict[str, int]:
    """Id → parameters, as every answer about the model counts them; `core.answer.recount` writes them."""
    counted: dict[str, int] = json.loads(COUNTS.read_text(encoding="utf-8"))
    return counted


@cache
def index() -> dict[str, str]:
    """Filed name → id, in the order of the catalogue. Only names in here ever become a path."""
    names: dict[str, str] = json.loads(INDEX.read_text(encoding="utf-8"))
    return names
