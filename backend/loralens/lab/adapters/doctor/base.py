"""The modules of a base model by name, with their shapes: what an adapter's names are held against."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from loralens.core import catalogue
from loralens.core.architecture.module import Embedding, Linear
from loralens.core.architecture.registry import build
from loralens.core.errors import LoraLensError
from loralens.core.question.model import Model, resolve

MOST_SUGGESTED: Final = 3
_LAYER: Final = re.compile(r"\.(\d+)\.")


def in_tower(name: str) -> bool:
    """Whether a module belongs to a vision or audio tower, by its name."""
    return any(word in name for word in ("vision", "visual", "audio"))


@dataclass(frozen=True, slots=True)
class WeightedModule:
    """A module that holds weights. An embedding's in_features are its entries, as in PEFT's lora_embedding_A."""

    kind: Literal["linear", "embedding", "other"]
    in_features: int
    out_features: int


@dataclass(frozen=True)
class Base:
    """A base model: its catalogue id ("custom" for a config.json), its name, its config and what stands where."""

    id: str
    name: str
    config: Mapping[str, Any]

    @cached_property
    def places(self) -> dict[str, WeightedModule]:
        """Every module with weights of its own, by full name."""
        found = {}
        for name, module in build(self.config).walk():
            if isinstance(module, Linear):
                found[name] = WeightedModule("linear", module.in_features, module.out_features)
            elif isinstance(module, Embedding):
                entries = module.weight.shape[0]
                found[name] = WeightedModule("embedding", entries if isinstance(entries, int) else 0, module.width)
            elif any(module.own_parameters()):
                found[name] = WeightedModule("other", 0, 0)
        return found

    @property
    def linear(self) -> list[str]:
        """Names of the linear layers."""
        return [name for name, place in self.places.items() if place.kind == "linear"]

    @property
    def layers(self) -> int:
        """Layers of the language model."""
        text = (name for name in self.places if not in_tower(name))
        return 1 + max((int(match[1]) for name in text if (match := _LAYER.search(name))), default=-1)

    @property
    def inner(self) -> Mapping[str, Any]:
        """The language model's own part of the config."""
        text = self.config.get("text_config")
        return text if isinstance(text, Mapping) else self.config


def base_of(model: str | None = None, config: Mapping[str, Any] | None = None) -> Base:
    """The base of a request: a name, or a config.json.

    Raises: `InvalidInput` or `UnknownModel` for what names none, `UnsupportedArchitecture` for a family not known here.
    """
    found: Model = resolve(model, config)
    base = Base(found.id, found.name, found.config)
    _ = base.places
    return base


def bases_that_fit(shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    """Catalogue ids of models that have all these modules, with these (in_features, out_features)."""
    found = []
    for entry in catalogue.models():
        try:
            places = Base(entry.id, entry.name, entry.config).places
        except LoraLensError:
            continue
        if all(
            name in places and (places[name].in_features, places[name].out_features) == shape
            for name, shape in shapes.items()
        ):
            found.append(entry.id)
            if len(found) == MOST_SUGGESTED:
                break
    return found
