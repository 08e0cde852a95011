"""A linear layer with LoRA adapters: three operations per call, one write per switch, four for a mixed batch.

    y = x·Wᵀ                base, by reference or prepacked
    h = x·Aᵀ                (rows, rank)
    y += scaling · h·Bᵀ     in place, the scale inside the product

Nothing is copied from the base. Adapters of a whole model lie in one `AdapterTable`, whose index says which of them
is on; all layers read that index. A batch whose rows want different adapters runs as one product over all adapters'
A, one multiplication by a mask that leaves every row its own columns, and one product back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from loralens.core.errors import InvalidInput
from loralens.lab.matmul.factors import folded, transposed
from loralens.lab.matmul.function import lora_linear
from loralens.lab.matmul.packed import PackedWeight

if TYPE_CHECKING:
    from loralens.lab.adapters.adapter import Factors

BASE = -1


class AdapterTable:
    """Which adapters there are and which one is on, for all layers of a model.

    `index` is that one number; `use` writes it. BASE (-1) means the frozen model alone.
    """

    __slots__ = ("index", "names", "position")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.position: dict[str | None, int] = {None: BASE}
        self.index = BASE

    def add(self, name: str) -> int:
        """Reserve the place of a new adapter, or find that of an old one that is to be replaced."""
        if name not in self.position:
            self.position[name] = len(self.names)
            self.names.append(name)
        return self.position[name]

    def use(self, name: str | None) -> None:
        """Switch the whole model to an adapter (None: to the base). One write, however many layers there are."""
        try:
            self.index = self.position[name]
        except KeyError:
            raise InvalidInput(
                f"no adapter is called {name!r}", field="adapter", hint=f"loaded: {', '.join(self.names) or 'none'}"
            ) from None

    def rows(self, names: Sequence[str | None], device: torch.device | str = "cpu") -> Tensor:
        """Positions for a batch, one per row; BASE for rows without an adapter."""
        missing = [name for name in names if name not in self.position]
        if missing:
            raise InvalidInput(f"no adapter is called {missing[0]!r}", field="adapter")
        return torch.tensor([self.position[name] for name in names], device=device)


class LoraLinear(nn.Module):
    """A frozen linear layer under a table of adapters.

    Shapes: x (..., in_features); the result (..., out_features).

    Args:
        weight: W (out_features, in_features), held by reference.
        bias: (out_features,) or None.
        table: shared by all layers of a model; a layer on its own gets its own.
        packed: compute the base from this copy of W; W itself is then needed for backward and merging only.
        add_in_base: let the packed base add the adapter's part in its epilogue instead of adding it afterwards:
            faster for bfloat16 at few rows.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        table: AdapterTable | None = None,
        packed: PackedWeight | None = None,
        add_in_base: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.table = table or AdapterTable()
        self.out_features, self.in_features = weight.shape
        self._packed = packed
        self._add_in_base = add_in_base and packed is not None
        self._pairs: list[tuple[Tensor, Tensor, float] | None] = []
        self._scaling: dict[int, float] = {}
        self._stacked: tuple[Tensor, Tensor, Tensor] | None = None

    def set_adapter(self, name: str, lora_a: Tensor, lora_b: Tensor, scaling: float) -> None:
        """Put an adapter into the table's place of that name, in the base's dtype and device.

        Shapes: lora_a (rank, in_features), lora_b (out_features, rank).

        Raises:
            InvalidInput: the shapes do not fit this layer.
        """
        rank = lora_a.shape[0]
        if tuple(lora_a.shape) != (rank, self.in_features) or tuple(lora_b.shape) != (self.out_features, rank):
            raise InvalidInput(
                f"adapter {name!r} has lora_a {tuple(lora_a.shape)} and lora_b {tuple(lora_b.shape)}; this layer takes "
                f"(rank, {self.in_features}) and ({self.out_features}, rank)",
                field="adapter",
            )
        at = self.table.add(name)
        dtype, device = self.weight.dtype, self.weight.device
        while len(self._pairs) <= at:
            self._pairs.append(None)
        # B lies transposed, (rank, out_features): products with it then read whole rows.
        lora_bt, left = folded(transposed(lora_b.to(device, dtype)), float(scaling))
        self._pairs[at] = (lora_a.to(device, dtype), lora_bt, left)
        self._scaling[at] = float(scaling)
        self._stacked = None

    def set_factors(self, name: str, factors: Factors) -> None:
        """Take one module's factors of a PEFT adapter as it was read from its safetensors file."""
        if factors.magnitude is not None or factors.bias is not None or factors.is_embedding:
            raise InvalidInput(
                f"{factors.module}: DoRA magnitudes, adapter biases and embeddings are not served by this layer",
                field="adapter",
                hint="merge the adapter into its base instead",
            )
        self.set_adapter(name, factors.lora_a, factors.lora_b, factors.scaling)

    def trainable(self, name: str) -> tuple[Tensor, Tensor]:
        """The adapter's tensors, A (rank, in_features) and Bᵀ (rank, out_features), made trainable in place."""
        at = self.table.position.get(name, BASE)
        pair = self._pairs[at] if 0 <= at < len(self._pairs) else None
        if pair is None:
            raise InvalidInput(f"this layer has no adapter {name!r}", field="adapter")
        lora_a, lora_bt, left = pair
        if left != self._scaling[at]:  # an optimizer must see B itself, not B times its scaling
            pair = (lora_a, lora_bt / self._scaling[at], self._scaling[at])
            self._pairs[at], self._stacked = pair, None
        return pair[0].requires_grad_(), pair[1].requires_grad_()

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """The layer's output under the adapter that is on.

        Args:
            x: (..., in_features).
            rows: positions from `AdapterTable.rows`, one per row of x flattened: each row its own adapter.
        """
        if x.dim() == 2:
            return self._flat(x, rows)
        return self._flat(x.reshape(-1, self.in_features), rows).view(*x.shape[:-1], self.out_features)

    def _flat(self, x: Tensor, rows: Tensor | None) -> Tensor:
        if rows is not None:
            return self._mixed(x, rows)
        at = self.table.index
        pair = self._pairs[at] if 0 <= at < len(self._pairs) else None
        if pair is None:
            return self._base(x)
        lora_a, lora_bt, scaling = pair
        if torch.is_grad_enabled() and (x.requires_grad or lora_a.requires_grad or lora_bt.requires_grad):
            return lora_linear(x, self.weight, self.bias, lora_a, lora_bt, scaling)
        h = linear(x, lora_a)
        if self._add_in_base and self._packed is not None:
            if scaling != 1.0:
                h.mul_(scaling)
            return self._packed(x, self.bias, add=h @ lora_bt)
        return self._base(x).addmm_(h, lora_bt, alpha=scaling)

    def _mixed(self, x: Tensor, rows: Tensor) -> Tensor:
        stacked_a, stacked_bt, _ = self._stack()
        h = linear(x, stacked_a).mul_(self.mask(rows))
        if self._add_in_base and self._packed is not None:
            return self._packed(x, self.bias, add=h @ stacked_bt)
        return self._base(x).addmm_(h, stacked_bt)

    def mask(self, rows: Tensor) -> Tensor:
        """(rows, adapters × rank): each row's scaling on its own adapter's columns, 0 elsewhere."""
        if rows is not self._mask_of:
            self._mask_rows = self._stack()[2][rows]
            self._mask_of = rows
        return self._mask_rows

    _mask_of: Tensor | None = None
    _mask_rows: Tensor

    def _stack(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._stacked is None:
            pairs = [pair for pair in self._pairs if pair is not None]
            if not pairs:
                raise InvalidInput("this layer has no adapter", field="adapter", hint="call set_adapter first")
            masks = self.weight.new_zeros(len(self._pairs) + 1, sum(pair[0].shape[0] for pair in pairs))
            column = 0
            for at, pair in enumerate(self._pairs):
                if pair is not None:
                    masks[at, column : column + pair[0].shape[0]] = pair[2]
                    column += pair[0].shape[0]
            # The last row stays 0: index BASE = -1 finds it.
            self._stacked = (torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs]), masks)
            self._mask_of = None
        return self._stacked

    def _base(self, x: Tensor) -> Tensor:
        if self._packed is not None and not torch.is_grad_enabled():
            return self._packed(x, self.bias)
        return linear(x, self.weight, self.bias)
