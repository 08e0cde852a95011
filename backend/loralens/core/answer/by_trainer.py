"""The same question with each trainer's defaults in the words that it leaves open: one row per trainer and method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loralens.core.answer.estimate import estimate_model
from loralens.core.errors import LoraLensError
from loralens.core.question.presets import preset
from loralens.core.question.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from loralens.core.answer.shapes import TrainerRow
    from loralens.core.question.model import Model


def by_trainer(
    model: Model, methods: tuple[str, ...], words: Mapping[str, Any] | None, names: Iterable[str], gpus: tuple[str, ...]
) -> list[TrainerRow]:
    """A row for each; `problem` says why a trainer's defaults do not go with the rest, and `peak` is null there."""
    return [_row(model, method, words or {}, name, gpus) for method in methods for name in names]


def _row(model: Model, method: str, words: Mapping[str, Any], name: str, gpus: tuple[str, ...]) -> TrainerRow:
    title = f"{preset(name).title} {preset(name).version}"
    try:
        recipe = model.packed(Recipe.from_mapping({**words, "trainer": name}), (method,))
        estimate = estimate_model(model, method, recipe)
    except LoraLensError as error:
        return {
            "trainer": name,
            "title": title,
            "method": method,
            "peak": None,
            "recipe": None,
            "fits": [],
            "problem": error.message,
        }
    answer = estimate.to_dict(gpus)
    return {
        "trainer": name,
        "title": preset(name).titled(estimate.recipe),
        "method": method,
        "peak": answer["peak"],
        "recipe": answer["recipe"],
        "fits": answer["fits"],
        "problem": None,
    }
