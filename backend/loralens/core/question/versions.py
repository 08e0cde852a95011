"""Library versions that change the answer, and today's defaults.

Source: the releases' own modelling code; transformers changed how often the logits are copied:
before 4.45 and in the models that did it themselves, logits became float32 before anything else; 4.45 to 4.49 kept the
16-bit logits, a float32 copy and its shifted, contiguous copy; since 4.50 the labels are shifted instead.
"""

from __future__ import annotations

from typing import Final, Protocol


class HasStack(Protocol):
    """What is read of a recipe here (`recipe.Recipe` is one)."""

    @property
    def stack(self) -> tuple[tuple[str, str], ...]:
        """Library and version."""

    @property
    def compile(self) -> bool:
        """torch.compile."""

    @property
    def fused_kernels(self) -> str:
        """Fused norm and rotary kernels."""


CURRENT: Final = {
    "transformers": (5, 23), "torch": (2, 13), "peft": (0, 21), "bitsandbytes": (0, 50), "liger": (0, 8), "unsloth": (2026, 10),
}  # fmt: skip
LABELS_SHIFTED_SINCE: Final = (4, 50)
LOSS_FUNCTION_SINCE: Final = (4, 46)


def version(recipe: HasStack, library: str) -> tuple[int, ...]:
    """The library's version in the recipe's stack, or today's."""
    text = dict(recipe.stack).get(library, "")
    return read_version(text) or CURRENT.get(library, (0,))


def read_version(text: str) -> tuple[int, ...]:
    """Up to three numbers of a version; empty where it begins with none.

    >>> read_version("0.21.2"), read_version("main")
    ((0, 21, 2), ())
    """
    parts = []
    for part in text.split(".")[:3]:
        digits = "".join(symbol for symbol in part if symbol.isdigit())
        if not digits:
            break
        parts.append(int(digits[:6]))
    return tuple(parts)


def names_library(recipe: HasStack, library: str) -> bool:
    """Is the library part of the recipe's stack?"""
    return any(name == library for name, _ in recipe.stack)


FRAMEWORKS: Final = ("litgpt", "torchtune", "megatron")
# MatMul4Bit keeps its input as an attribute until then (0.41.1: `ctx.tensors = (A, B)`; 0.43.3: `(None, B)`)
FOUR_BIT_FORGETS_INPUT_SINCE: Final = (0, 43)


def framework(recipe: HasStack) -> str:
    """The training framework whose own model code runs; empty for transformers."""
    for name in FRAMEWORKS:
        if any(library == name for library, _ in recipe.stack) or ("framework", name) in recipe.stack:
            return name
    return ""


def assumptions(recipe: HasStack, modelled: str = "") -> list[str]:
    """What a recipe's stack and switches leave uncertain; `modelled` is the framework whose model code was walked."""
    found = []
    if recipe.compile and modelled != "torchtune":
        # source: torchtune's published ladder for Llama-3.2-3B, 60.0 GiB eager against 51.0 compiled (docs/accuracy.md)
        found.append(
            "torch.compile is not simulated: the eager step is computed; compiled, activations were published to be 15 to "
            "20% smaller, so the peak lies between 80% of the activations shown and all of them"
        )
    if recipe.fused_kernels != "none":
        found.append(
            "fused kernels: the norms and, with +lora, single adapters are modelled; what a fused rotary embedding and a fused MLP "
            "with adapters save in passing is not"
        )
    name = framework(recipe)
    if name and name != modelled:
        found.append(
            f"{name} has model code of its own, which is not modelled for this family: published runs of it differ from what is "
            "computed here, see docs/accuracy.md"
        )
    return found
