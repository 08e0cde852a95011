"""What a batch of pictures or sound is: shapes for the fake GPU, and what the processors of transformers are run on."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch

from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe

Shape = tuple[int, ...]


@dataclass(slots=True)
class MediaInputs:
    """What a batch holds beside its tokens: shapes of float and of int64 tensors, and values that are read as they are."""

    floats: dict[str, Shape] = field(default_factory=dict)
    integers: dict[str, Shape] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    numbers: list[Shape] = field(default_factory=list)  # 32-bit ones, beside values that are read: for their memory
    held: list[torch.Tensor] = field(default_factory=list)
    instead: dict[str, object] = field(default_factory=dict)  # functions of the model's module, replaced
    chosen: dict[Shape, int | tuple[int, int]] = field(default_factory=dict)  # see `kernels.CHOSEN`
    listed: list[int] | dict[torch.dtype, list[int]] | None = None  # what `Tensor.tolist` gives, perhaps by dtype

    def tensors(self, dtype: torch.dtype, device: str = "cuda") -> dict[str, object]:
        """On the fake GPU."""
        self.held = [torch.empty(shape, device=device, dtype=torch.int32) for shape in self.numbers]
        found: dict[str, object] = {name: torch.empty(s, device=device, dtype=dtype) for name, s in self.floats.items()}
        found |= {name: torch.empty(s, device=device, dtype=torch.int64) for name, s in self.integers.items()}
        return found | self.values


class Sizes(numpy.ndarray):
    """Sizes of pictures, read by value, with torch's word for an axis."""

    def prod(self, axis: int | None = None, dim: int | None = None) -> Any:  # type: ignore[override]
        """The product along an axis."""
        return numpy.asarray(self).prod(axis=axis if dim is None else dim)


def pictures(recipe: Recipe) -> list[numpy.ndarray]:
    """Every picture of a batch, empty."""
    if recipe.image_size is None:
        raise InvalidInput("image_size is missing", field="recipe.image_size", hint="try image_size=448x672")
    picture = numpy.zeros((*recipe.image_size, 3), dtype=numpy.uint8)
    return [picture] * (recipe.images * recipe.micro_batch_size)


def processor(path: str, **words: Any) -> Any:
    """One of transformers' own, by its place below `transformers.models`."""
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)(**words)
