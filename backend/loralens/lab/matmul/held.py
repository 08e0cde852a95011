"""What a layer keeps of its adapters, by position, and what it derives from them for a mixed batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loralens.lab.matmul.table import Pair, Rows


@dataclass(slots=True, eq=False)
class TrainedFactors:
    """The adapter that trains. Shapes: lora_a (rank, in_features), lora_b (out_features, rank)."""

    position: int
    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scaling: float

    def pair(self) -> Pair | None:
        """As a product takes it; B is transposed anew, since a kept view would not see that it was replaced."""
        return (self.lora_a, self.lora_b.t(), self.scaling) if len(self.lora_a) else None


class HeldFactors:
    """A layer's adapters by position. An object of its own, since writing an attribute of a module costs microseconds.

    `pairs` as in `Pair`; `wide`: the same in float32 for that form; `scaling`: as it was given; `batch`: of the last
    mixed batch; `training`: the one that is no pair, since it changes.
    """

    __slots__ = ("batch", "pairs", "scaling", "training", "wide")

    def __init__(self) -> None:
        self.pairs: list[Pair | None] = []
        self.wide: list[tuple[Tensor, Tensor] | None] = []
        self.scaling: dict[int, float] = {}
        self.batch: Batch | None = None
        self.training: TrainedFactors | None = None

    def grow(self, positions: int) -> None:
        """Make room for so many positions."""
        missing = [None] * (positions - len(self.pairs))
        self.pairs += missing
        self.wide += missing

    def pair(self, position: int) -> Pair | None:
        """What lies at a position."""
        if self.training is not None and self.training.position == position:
            return self.training.pair()
        return self.pairs[position] if 0 <= position < len(self.pairs) else None

    def drop(self, position: int) -> None:
        """Empty a position."""
        if 0 <= position < len(self.pairs):
            self.pairs[position] = self.wide[position] = self.batch = None


class Batch:
    """What a mixed batch needs, made once: the factors of the adapters that it uses and each row's mask.

    Shapes: lora_a (columns, in_features), lora_bt (columns, out_features), mask (rows, columns): 1 on the columns of the
    row's own adapter, 0 elsewhere. `scaling` is what all adapters have left to multiply with; where they differ, the
    mask holds it, rounded to its format.
    """

    def __init__(self, rows: Rows, held: HeldFactors) -> None:
        self.rows = rows
        found = {at: pair for at in sorted(set(rows.positions)) if (pair := held.pair(at)) is not None}
        self.lora_a: Tensor | None = None
        # Factors that train change under copies of them.
        self.reusable = not any(pair[0].requires_grad or pair[1].requires_grad for pair in found.values())
        if not found:
            return
        pairs = list(found.values())
        alike = len({pair[2] for pair in pairs}) == 1
        self.scaling = pairs[0][2] if alike else 1.0
        masks = pairs[0][0].new_zeros(len(found) + 1, sum(pair[0].shape[0] for pair in pairs))
        column = 0
        for number, (lora_a, _, scaling) in enumerate(pairs):
            masks[number, column : column + lora_a.shape[0]] = 1.0 if alike else scaling
            column += lora_a.shape[0]
        self.lora_a = torch.cat([pair[0] for pair in pairs])
        self.lora_bt = torch.cat([pair[1] for pair in pairs])
        number_of = {at: number for number, at in enumerate(found)}
        # The last mask stays 0: rows without an adapter take it.
        chosen = [number_of.get(at, len(found)) for at in rows.positions]
        self.mask = masks[torch.tensor(chosen, device=masks.device)]
