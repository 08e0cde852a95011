"""Library versions that change the answer, and today's defaults.

Source: the releases' own modelling code; transformers changed how often the logits are copied:
before 4.45 and in the models that did it themselves, logits became float32 before anything else; 4.45 to 4.49 kept the
16-bit logits, a float32 copy and its shifted, contiguous copy; since 4.50 the labels are shifted instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from loralens.core.recipe import Recipe

CURRENT: Final = {"transformers": (5, 23), "torch": (2, 13), "peft": (0, 21), "bitsandbytes": (0, 50)}
LABELS_SHIFTED_SINCE: Final = (4, 50)
LOSS_FUNCTION_SINCE: Final = (4, 46)


def version(recipe: Recipe, library: str) -> tuple[int, ...]:
    """The library's version in the recipe's stack, or today's."""
    for name, text in recipe.stack:
        if name == library:
            parts = []
            for part in text.split(".")[:3]:
                digits = "".join(symbol for symbol in part if symbol.isdigit())
                if not digits:
                    break
                parts.append(int(digits[:6]))
            return tuple(parts) or CURRENT.get(library, (0,))
    return CURRENT.get(library, (0,))
