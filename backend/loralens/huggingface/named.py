"""What the catalogue alone knows by the name that a person pastes: no folder, no network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loralens.core import catalogue
from loralens.core.answer.answers import model_object
from loralens.core.errors import InvalidInput, UnknownModel
from loralens.core.question.model import named
from loralens.huggingface.ids import HUB_HOSTS, PASTE, model_id

if TYPE_CHECKING:
    from loralens.huggingface.shapes import ResolvedModel


def by_name(text: Any, hosts: frozenset[str] = HUB_HOSTS) -> ResolvedModel:
    """The answer of `POST /api/models/resolve` where only the catalogue is asked.

    Raises:
        InvalidInput: no name of a model.
        UnknownModel: the catalogue has no model of this name.
    """
    name = read_name(text)
    if "/" not in name:  # the Hub's models have an owner: this is read by rules or misspelt
        return listed(catalogue.reading(name))
    found = catalogue.read(name)
    if found is not None and not found.notes:
        return listed(found)
    return same_architecture(model_id(name, hosts))


def read_name(text: Any) -> str:
    """The text, without the spaces around it; raises `InvalidInput` for anything but text."""
    if not isinstance(text, str):
        raise InvalidInput("model must be a text", field="model", hint="try Qwen/Qwen2.5-7B")
    return text.strip()


def same_architecture(model: str) -> ResolvedModel:
    """The catalogue's model whose architecture the name of a model on the Hub means."""
    found = catalogue.read(model)
    if found is None:
        raise UnknownModel(
            f"{model} is neither in the catalogue nor in a local folder",
            field="model",
            hint=f"the Hub is only asked when you say so (from_hub, --from-hub); or {PASTE}",
        )
    return listed(found)


def listed(found: catalogue.NameReading) -> ResolvedModel:
    """A model of the catalogue as an answer."""
    model = replace(named(found.id), read_as=found.notes)
    return {
        "source": "catalogue",
        "id": found.id,
        "model": model_object(model),
        "config": catalogue.entry(found.id).config,
        "fetched_at": None,
    }
