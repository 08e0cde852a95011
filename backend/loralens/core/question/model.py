"""The model that a question is about: from the catalogue, or from a config.json that somebody gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from loralens.core import catalogue
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe_fields import frozen


@dataclass(frozen=True, slots=True)
class Model:
    """What is asked about. `key` is equal for equal configs."""

    id: str
    name: str
    family: str
    config: Mapping[str, Any]
    key: Any

    def to_dict(self, parameters: int, left_out: list[str]) -> dict[str, Any]:
        """The contract's `model` object."""
        return {
            "id": self.id,
            "name": self.name,
            "family": self.family,
            "parameters": parameters,
            "left_out": left_out,
        }


@lru_cache(maxsize=512)
def named(name: str) -> Model:
    """A model by alias, catalogue id or Hugging Face id; raises `UnknownModel`."""
    entry = catalogue.model(name)
    return Model(entry.id, entry.name, entry.family, entry.config, entry.id)


def given(config: Any) -> Model:
    """A model by its config.json.

    Raises:
        InvalidInput: it is not an object, or nested too deeply.
    """
    if not isinstance(config, Mapping):
        raise InvalidInput(
            f"config must be an object, got {type(config).__name__}", field="config", hint="paste a model's config.json"
        )
    try:
        key = frozen(config)
        hash(key)
    except (RecursionError, TypeError) as error:
        raise InvalidInput("config is nested too deeply or holds something that is not JSON", field="config") from error
    family = config.get("model_type")
    family = family if isinstance(family, str) and len(family) <= 100 else "unknown"
    name = config.get("_name_or_path") or config.get("name")
    name = name if isinstance(name, str) and 0 < len(name) <= 200 else f"your {family} model"
    return Model("custom", name, family, config, key)


def resolve(model: Any = None, config: Any = None) -> Model:
    """The model of a request: exactly one of `model` and `config`."""
    if config is not None:
        if model is not None:
            raise InvalidInput("give either model or config, not both", field="config")
        return given(config)
    if isinstance(model, Mapping):
        return given(model)
    if not isinstance(model, str) or not model.strip():
        raise InvalidInput("no model was named", field="model", hint="try model=7B, or send config")
    return named(model)
