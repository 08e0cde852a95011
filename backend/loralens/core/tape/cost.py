"""What one kernel costs: its operations, the bytes that it moves, and what for.

Leaves out: kernels that move a few numbers only; in-place updates that allocate nothing; what a window spares a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.size import RANK, ZERO, Size

PHASES: Final = ("forward", "recomputation", "backward", "optimizer")
PRODUCTS, WEIGHT_GRADIENTS, NARROW = "products", "weight_gradients", "narrow_products"
ATTENTION, UNPACKING, ELEMENTWISE, LOSS, UPDATE = "attention", "unpacking", "elementwise", "loss", "optimizer"
CAUSES: Final = (PRODUCTS, WEIGHT_GRADIENTS, NARROW, ATTENTION, UNPACKING, ELEMENTWISE, LOSS, UPDATE)
NARROW_BELOW: Final = 256
"""A product with a dimension below this is bound by memory, not by arithmetic: LoRA's factors, a router. An assumption; the
tiles of cuBLAS's large kernels are 128 or 256 wide."""
ATTENTION_BACKWARD: Final = 5, 2
"""Five products in backward for two in forward (Dao et al. 2022, arXiv:2205.14135, algorithm 4)."""


class Cost(NamedTuple):
    """One kernel. `rate`: at what speed its operations run; `flops` of an unpacking are the weights that it unpacks."""

    cause: str
    rate: str  # half | float32 | flash | efficient | efficient_float32 | memory | the name of a packing
    flops: Size
    bytes: Size


Costs = tuple[Sequence[Cost] | None, Sequence[Cost] | None]
"""Of an operator's forward and of its backward; None: what it reads and allocates."""
Asked = Costs | Callable[[], Costs]
"""Costs, or what makes them where they are asked for: a walk for memory alone does not."""
Counted = tuple[int, Sequence[Cost] | None]
"""In how many layers an operator runs, and its costs in backward (None: what it reads and allocates)."""
ONCE: Final[Counted] = (1, None)
NOTHING: Final[Costs] = ((), ())


def moving(moved: Size, section: str = "") -> Cost:
    """A kernel that reads and writes so many bytes; in the section of the logits it belongs to the loss."""
    return Cost(LOSS if section == "logits" else ELEMENTWISE, "memory", ZERO, moved)


def rate_of(dtype: str) -> str:
    """At what rate a matrix product of this dtype runs."""
    return "float32" if dtype == "float32" else "half"


def is_narrow(*widths: int | Size) -> bool:
    """Is one of a product's dimensions so small that memory decides?"""
    return any(width == RANK if isinstance(width, Size) else width < NARROW_BELOW for width in widths)


def unpacked(packing: str, weights: Size, dtype: str) -> Cost:
    """A packed weight is written out in its compute dtype."""
    return Cost(UNPACKING, packing, weights, weights * ITEM_BYTES[dtype])


def attention(kernel: str, flops: Size, moved: Size) -> Costs:
    """A fused kernel of so many operations in forward."""
    more, fewer = ATTENTION_BACKWARD
    return (Cost(ATTENTION, kernel, flops, moved),), (Cost(ATTENTION, kernel, flops * more // fewer, moved * 2),)
