"""A model that a Python file of this machine builds. It runs when somebody names it on the command line, and never else.

The file has a function that returns a `torch.nn.Module`, named after the colon; beside it `inputs(batch, length)`, the model's
keyword arguments as a dictionary of empty tensors, and, where the model's output has no `loss`, `loss(model, inputs)`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.foreign import Foreign
from loralens.lab.trace.loops import PlainLoop

_FORM = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


def names_a_file(text: Any) -> bool:
    """Is this `FILE.py:FUNCTION`?"""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


class Local(Foreign):
    """`FILE.py:FUNCTION`."""

    def __init__(self, text: str) -> None:
        found = _FORM.fullmatch(text)
        assert found is not None
        self._path, self._function = Path(found[1]), found[2]

    @cached_property
    def _module(self) -> ModuleType:
        if not self._path.is_file():
            raise InvalidInput(f"there is no file {self._path}", field="model", hint="FILE.py:FUNCTION")
        spec = importlib.util.spec_from_file_location("loralens_local_model", self._path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def _named(self, name: str) -> Callable[..., Any]:
        found = getattr(self._module, name, None)
        if not callable(found):
            raise InvalidInput(
                f"{self._path} has no function {name}",
                field="model",
                hint="it needs the function that builds the model, and inputs(batch, length)",
            )
        made: Callable[..., Any] = found
        return made

    def build(self) -> torch.nn.Module:
        """What the function returns."""
        model = self._named(self._function)()
        if not isinstance(model, torch.nn.Module):
            raise InvalidInput(f"{self._function} returned no torch.nn.Module: {type(model).__name__}", field="model")
        return model

    def batch(self, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
        """What `inputs` returns, on the fake GPU; tensors of floats in `dtype`."""
        with torch.device("cuda"):
            made = self._named("inputs")(recipe.micro_batch_size, recipe.sequence_length)
        floats = {name: value for name, value in made.items() if torch.is_tensor(value) and value.is_floating_point()}
        return dict(made) | {name: value.to(dtype) for name, value in floats.items()}

    def loss(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """The file's own `loss`, or the one in the model's output."""
        own = getattr(self._module, "loss", None)
        loss: torch.Tensor = own(model, batch) if callable(own) else PlainLoop(keeps=False)(model, batch)
        return loss
