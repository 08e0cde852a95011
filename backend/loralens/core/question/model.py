"""The model that a question is about: from the catalogue, or from a config.json that somebody gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.errors import InvalidInput
from loralens.core.question.packings import said_by
from loralens.core.question.quantization import Quantization
from loralens.core.question.recipe import Recipe
from loralens.core.question.traced import TracedPlans, traced_plans

if TYPE_CHECKING:
    from loralens.core.question.shapes import ModelSummary


MAX_KEYS: Final = 1_000  # of one object in a config.json (assumption, far beyond any that exists)
MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class Model:
    """What is asked about. `key` names a catalogue model; None: what is read of the config tells (`question.reading`).

    Attributes:
        read_as: how a name that the catalogue does not have was understood, one sentence each.
        packing: how the weights under that name are packed, as a recipe's `quantization`; None: they are not.
    """

    id: str
    name: str
    family: str
    config: Mapping[str, Any]
    key: str | None
    read_as: tuple[str, ...] = ()
    packing: str | None = None

    @property
    def traced(self) -> TracedPlans | None:
        """The plans that were traced of this model; None where it is computed."""
        return traced_plans(self.config) if self.key is None else None

    def to_dict(self, parameters: int, left_out: list[str]) -> ModelSummary:
        """The contract's `model` object; `read_as` is there only where a name had to be understood."""
        row: ModelSummary = {
            "id": self.id,
            "name": self.name,
            "family": self.family,
            "parameters": parameters,
            "left_out": left_out,
        }
        if self.read_as:
            row["read_as"] = list(self.read_as)
        return row

    def packed(self, recipe: Recipe, methods: tuple[str, ...]) -> Recipe:
        """The recipe with the packing that the name means, where the recipe names none.

        Raises:
            InvalidInput: full fine-tuning alone is asked of weights that are packed, which cannot train.
        """
        if self.packing is not None and methods == ("full",):
            raise InvalidInput(
                f"the weights under this name are packed ({self.packing}) and cannot train in full",
                field="method",
                hint=f"try model={self.id} for the original, or method=qlora",
            )
        if self.packing is None or (recipe.quantization is not None and not recipe.unnamed_packing):
            return recipe
        packing = replace(recipe.quantization or Quantization(), type=self.packing)
        return replace(recipe, quantization=packing, left_open=recipe.left_open - {"quantization"})

    def assumptions(self, method: str, recipe: Recipe) -> list[str]:
        """What the name of the model adds to an answer's assumptions."""
        said = list(self.read_as)
        if self.packing is None:
            return said
        if method == "full":
            return [
                *said,
                f"weights packed as {self.packing} cannot train: counted for the original in {recipe.weights_dtype}",
            ]
        asked = recipe.quantization
        if asked is not None and asked.type != self.packing:
            said.append(
                f"the recipe's quantization {asked.type} is counted, not the {self.packing} that the name means"
            )
        return said


@lru_cache(maxsize=512)
def named(name: str) -> Model:
    """A model by any name that the catalogue has or can read, see `catalogue.reading`; raises `UnknownModel`."""
    found = catalogue.reading(name)
    entry = catalogue.entry(found.id)
    return Model(entry.id, entry.name, entry.family, entry.config, entry.id, found.notes, found.packing)


def given(config: Any) -> Model:
    """A model by its config.json.

    Raises:
        InvalidInput: it is not an object, or nested too deeply.
    """
    if not isinstance(config, Mapping):
        raise InvalidInput(
            f"config must be an object, got {type(config).__name__}", field="config", hint="paste a model's config.json"
        )
    _check(config)
    family = config.get("model_type")
    family = family if isinstance(family, str) and len(family) <= 100 else "unknown"
    name = config.get("_name_or_path") or config.get("name")
    name = name if isinstance(name, str) and 0 < len(name) <= 200 else f"your {family} model"
    packing, notes = said_by(config)
    return Model("custom", name, family, config, None, notes, packing)


def _check(config: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for a config that is no JSON of reasonable shape, before anything reads it."""
    level: list[Any] = [config]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                if len(value) > MAX_KEYS:
                    raise InvalidInput(f"config has {len(value)} keys, allowed are {MAX_KEYS}", field="config")
                deeper.extend(value.values())
            elif isinstance(value, (list, tuple)):
                deeper.extend(item for item in value if isinstance(item, (Mapping, list, tuple)))
            elif value is not None and not isinstance(value, (str, int, float)):
                raise InvalidInput("config holds something that is not JSON", field="config")
        level = deeper
        if not level:
            return
    raise InvalidInput(f"config is nested deeper than {MAX_DEPTH} levels", field="config")


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
