"""Every tensor that outlives a step: weights, adapter, gradients, optimizer states, with its bytes and how often it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.answer.counted import counted_for
from loralens.core.step.optimizer import OPTIMIZERS

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe


@dataclass(frozen=True, slots=True)
class RestingBlock:
    """Tensors of one size and category. `bytes`: of one of them."""

    name: str
    category: str
    bytes: int
    count: int


def resting_blocks(model: Model, method: str, recipe: Recipe) -> list[RestingBlock]:
    """One row for each size within a category; of packed weights the codes alone, which are most of their bytes.

    Raises:
        UnsupportedArchitecture: the step is not modelled.
    """
    counted = counted_for(model, method, recipe)
    rank = recipe.lora.rank
    rows: dict[tuple[str, str, int], int] = {}

    def add(name: str, category: str, size: int, count: int) -> None:
        if size:
            rows[name, category, size] = rows.get((name, category, size), 0) + count

    for item in counted.held:
        p = item.parameter
        category = "adapter" if p.role == "adapter" else "weights"
        size = p.numel.at(1, 1, rank) // 2 if p.packing is not None else p.bytes.at(1, 1, rank)
        add("codes of packed weights" if p.packing is not None else category, category, size, item.count)
    optimizer = OPTIMIZERS[recipe.optimizer]
    for tensor in counted.trained(recipe):
        add("gradient", "gradients", tensor.bytes.at(1, 1, rank), tensor.count)
        for part in optimizer.state_blocks(optimizer.state(tensor).at(1, 1, rank)):
            add("optimizer state", "optimizer_state", part, tensor.count)
    return [RestingBlock(name, category, size, count) for (name, category, size), count in rows.items()]
