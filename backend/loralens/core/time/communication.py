"""What several GPUs add to a step: bytes between them, and the processor's time for hooks around sharded units.

A strategy that is not named here has no time yet: what is not known stays unknown.
Source of the volumes: FSDP and ZeRO-3 gather every weight before forward and before backward and scatter the gradients
(Rajbhandari et al. 2020, arXiv:1910.02054, section 7); DDP and ZeRO 1 and 2 move each gradient twice (a ring's all-reduce).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.tape.size import ZERO, Size
from loralens.core.time.rates import Constants

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.held import Held

SHARDED: Final = ("fsdp", "fsdp2", "zero3")
REDUCED: Final = ("ddp", "zero1", "zero2")
HOOKS: Final = 5  # around a sharded unit: before and after forward, before and after backward, and the reduction
NVLINK_HIDES: Final = 0.95
"""Share of compute behind which transfers over NVLink hide; an assumption: on published runs they hide whole."""


@dataclass(frozen=True, slots=True)
class Communication:
    """Bytes of one micro-batch (`gathered`) and of one step (`reduced`); hooks around sharded units with their seconds."""

    gathered: Size
    reduced: Size
    hooks: int
    hook_seconds: float
    bytes_per_second: float
    hides: float
    sharded: bool


def communication(
    recipe: Recipe, held: Iterable[Held], layers: int, gpu: Gpu, constants: Constants, link: float | None = None
) -> Communication | None:
    """What a recipe's strategy moves; None for a strategy whose time is not known, and for a cut model.

    Args:
        recipe: with its strategy and number of GPUs.
        held: parameters with their counts.
        layers: of all stacks.
        gpu: whose links are used.
        constants: see `rates`.
        link: bytes a second between two GPUs of this machine; None: by the card's links.
    """
    strategy, gpus = recipe.parallelism.strategy, recipe.parallelism.gpus
    if recipe.parallelism.model_parallel * recipe.parallelism.cp > 1:
        return None
    weights = gradients = ZERO
    adapters = 0
    for item in held:
        whole = item.parameter.bytes * item.count
        weights = weights + whole
        if item.parameter.trainable:
            gradients = gradients + whole
            adapters += item.count if item.parameter.role == "adapter" else 0
    rate, hides = link_of(gpu, constants) if link is None else (link, constants.overlap)
    if strategy in SHARDED:
        units = layers + (adapters if strategy == "fsdp" else 0)  # PEFT's policy wraps every matrix of an adapter
        seconds = constants.zero3_hook_seconds if strategy == "zero3" else constants.sharded_unit_seconds
        moved = _of_others(weights * 2 + gradients, gpus)
        return Communication(moved, ZERO, units * HOOKS, units * HOOKS * seconds, rate, hides, sharded=gpus > 1)
    if strategy in REDUCED:
        return Communication(ZERO, _of_others(gradients * 2, gpus), 0, 0.0, rate, hides, sharded=False)
    return Communication(ZERO, ZERO, 0, 0.0, rate, hides, sharded=False) if gpus == 1 else None


def link_of(gpu: Gpu, constants: Constants) -> tuple[float, float]:
    """Bytes a second between two cards, and the share of compute behind which a transfer hides."""
    wide = gpu.interconnect.get("bytes_per_second_bidirectional")
    if gpu.interconnect.get("name") == "NVLink" and wide and not gpu.id.startswith("rtx-"):
        return constants.nvlink_share * wide / 2, NVLINK_HIDES
    rate = constants.geforce_bytes_per_second if gpu.id.startswith("rtx-3") else constants.pcie_bytes_per_second
    return rate, constants.overlap


def _of_others(size: Size, gpus: int) -> Size:
    return Size([coefficient * (gpus - 1) // gpus for coefficient in size])
