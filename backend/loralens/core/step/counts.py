"""How many parameters a method holds and trains, and what they take on disk: from the shapes alone, without a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core import methods
from loralens.core.architecture.registry import build, label_parameters
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.versions import framework, version
from loralens.core.step.held import Held, held_parameters
from loralens.core.tape.size import ZERO, Size

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Counts:
    """Polynomials of the rank. `total` counts tied weights once and adapters too, as PEFT does."""

    held: list[Held]
    total: Size
    trainable: Size
    checkpoint_bytes: Size  # the base model's tensors in the weights' dtype
    adapter_bytes: Size

    @staticmethod
    def of(held: list[Held], weights_dtype: str) -> Counts:
        """The sums over a model's parameters."""
        total = trainable = adapter = checkpoint = ZERO
        for item in held:
            parameter = item.parameter
            numel = parameter.numel * item.count
            total = total + numel
            if parameter.trainable:
                trainable = trainable + numel
            if parameter.role == "adapter":
                adapter = adapter + numel * ITEM_BYTES[parameter.dtype]
            else:
                checkpoint = checkpoint + numel * ITEM_BYTES[weights_dtype]
        return Counts(held, total, trainable, checkpoint, adapter)


def counts_for(model: Model, method: str, recipe: Recipe) -> Counts:
    """The counts of any family whose shapes are known, whether or not its step is walked.

    Raises:
        InvalidInput: a field of the config or of the recipe is missing, malformed or out of range.
        UnsupportedArchitecture: the model type is not modelled, or adapters on it are not.
    """
    root = build(model.config, version(recipe, "transformers"), framework(recipe))
    methods.prepare(method, root, recipe)
    label_parameters(root)
    return Counts.of(held_parameters(root), recipe.weights_dtype)
