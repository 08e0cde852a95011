"""Fine-tuning methods: each says which weights train, how the base is held, and which ops it adds.

A method is one module with a function `prepare(root, recipe) -> Prepared`; it is found by its name in `METHODS`.
"""

from __future__ import annotations

from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Final

from loralens.core.errors import InvalidInput

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.methods.base import Prepared
    from loralens.core.question.recipe import Recipe

METHODS: Final = {"full": "full", "lora": "lora", "qlora": "qlora", "dora": "dora"}
COMPARED: Final = ("full", "lora", "qlora")  # answered when no method is named, always in this order


def check(method: object) -> str:
    """The method's name, in whichever case it was written; raises `InvalidInput` for another one.

    >>> check("QLoRA")
    'qlora'
    """
    name = method.strip().casefold() if isinstance(method, str) else None
    if name not in METHODS:
        raise InvalidInput(
            f"unknown method {str(method)[:60]!r}; known: {', '.join(METHODS)}", field="method", hint="try method=lora"
        )
    return name


def prepare(method: str, root: Root, recipe: Recipe) -> Prepared:
    """Apply a method to a model."""
    module = import_module(f"loralens.core.methods.{METHODS[check(method)]}")
    prepared: Prepared = module.prepare(root, recipe)
    for parameter in chain(root.unreached(), root.media.unreached(recipe) if root.media else ()):
        parameter.idle = True
    return prepared
