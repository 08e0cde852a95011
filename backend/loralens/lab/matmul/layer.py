"""A linear layer with LoRA adapters: three operations per call, one write per switch, four for a mixed batch.

    y = x·Wᵀ                base, by reference or prepacked
    h = x·Aᵀ                (rows, rank)
    y += scaling · h·Bᵀ     in place, the scale inside the product

Nothing is copied from the base. All layers of a model share one `AdapterTable`, which says what is on. A batch whose
rows want different adapters runs as one product over the A of all that it uses, one multiplication by a mask that
leaves every row its own columns, and one product back.

One adapter may train: its factors are then parameters of the layer, A and B as PEFT holds them. The product under
autograd is written by hand (`function`), or with `join="apart"` made of the operations that PEFT runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from loralens.core.errors import InvalidInput
from loralens.lab.matmul.factors import laid_out, widened
from loralens.lab.matmul.function import lora_linear
from loralens.lab.matmul.held import Batch, HeldFactors, TrainedFactors
from loralens.lab.matmul.table import BASE, AdapterTable, Pair, Rows, Selection, own_selection

if TYPE_CHECKING:
    from loralens.lab.factors import Factors
    from loralens.lab.matmul.packed import PackedWeight

Join = Literal["after", "epilogue", "float32", "apart"]
"""Where the adapter's part meets the base's: added in place afterwards; computed first and added by the packed base's
own product; computed in float32 from copies of A and B and added in place; or added out of place after the base, as
PEFT does it, so that autograd keeps what PEFT's keeps."""


class LoraLinear(nn.Module):
    """A frozen linear layer under a table of adapters.

    Shapes: x (..., in_features); the result (..., out_features).

    Args:
        weight: W (out_features, in_features), held by reference.
        bias: (out_features,) or None.
        table: shared by all layers of a model; a layer on its own gets its own.
        packed: compute the base from this copy of W; W itself is then needed for backward and merging only.
        join: how the two parts meet; "epilogue" needs `packed`.
        name: of the layer in its model, for selections that bring pairs or weights by name.
    """

    lora_a: nn.Parameter | None
    lora_b: nn.Parameter | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        table: AdapterTable | None = None,
        packed: PackedWeight | None = None,
        join: Join = "after",
        name: str = "",
    ) -> None:
        out_features, in_features = weight.shape
        base = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
        base.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            base.bias = nn.Parameter(bias, requires_grad=False)
        self._setup(base, table, packed, join, name)

    @classmethod
    def over(cls, base_layer: nn.Linear, *, table: AdapterTable, name: str, join: Join = "after") -> LoraLinear:
        """Around a layer of a model, of whatever kind of nn.Linear: it keeps its own way to multiply."""
        layer = cls.__new__(cls)
        layer._setup(base_layer, table, None, join, name)
        return layer.eval()

    def _setup(
        self, base: nn.Linear, table: AdapterTable | None, packed: PackedWeight | None, join: Join, name: str
    ) -> None:
        super().__init__()
        self.base_layer = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.table = table or AdapterTable()
        self.name = name
        self._packed = packed
        self._join: Join = join
        self._plain = type(base) is nn.Linear
        # The base's own dict of weight and bias: looking them up through two modules costs a microsecond per call.
        self._frozen = base._parameters
        self._held = HeldFactors()
        self.register_parameter("lora_a", None)
        self.register_parameter("lora_b", None)

    @property
    def weight(self) -> Tensor:
        """The frozen W."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias, if there is one."""
        return self.base_layer.bias

    # Adapters

    def set_adapter(self, name: str, lora_a: Tensor, lora_b: Tensor, scaling: float) -> None:
        """Put an adapter into the table's place of that name; see `put`."""
        self._check(name, lora_a, lora_b)  # before the name gets a place
        self._put(self.table.add(name), lora_a, lora_b, scaling)

    def check(self, factors: Factors) -> None:
        """Refuse factors that this layer cannot serve or that do not fit it."""
        if factors.magnitude is not None or factors.bias is not None or factors.is_embedding:
            raise InvalidInput(
                f"{factors.module}: DoRA magnitudes, adapter biases and embeddings are not served by this layer",
                field="adapter",
                hint="merge the adapter into its base instead",
            )
        self._check(factors.module, factors.lora_a, factors.lora_b)

    def put(self, position: int, lora_a: Tensor, lora_b: Tensor, scaling: float) -> None:
        """Put an adapter at a position, in the base's dtype (float32 over a quantized base) and device.

        Calls that run meanwhile keep the pair that they have found.

        Shapes: lora_a (rank, in_features), lora_b (out_features, rank).

        Raises:
            InvalidInput: the shapes do not fit this layer.
        """
        self._check(self.table.names[position], lora_a, lora_b)
        self._put(position, lora_a, lora_b, scaling)

    def _put(self, position: int, lora_a: Tensor, lora_b: Tensor, scaling: float) -> None:
        # B lies transposed, (rank, out_features): products with it then read whole rows.
        (laid,) = laid_out([(self._own(lora_b), float(scaling))])
        self._hold(position, lora_a, lora_b, scaling, laid)

    def _own(self, factor: Tensor) -> Tensor:
        """In the base's dtype and device; the same tensor if it is."""
        weight = self.base_layer.weight
        return factor.to(weight.device, weight.dtype if weight.is_floating_point() else torch.float32)

    def _hold(self, position: int, lora_a: Tensor, lora_b: Tensor, scaling: float, laid: tuple[Tensor, float]) -> None:
        held = self._held
        held.grow(position + 1)
        wide = self._join == "float32"
        held.wide[position] = widened(lora_a, lora_b, scaling, self.weight.device) if wide else None
        held.scaling[position] = float(scaling)
        held.pairs[position] = (self._own(lora_a), *laid)
        held.batch = None
        self._stop_training(position)

    def drop(self, position: int) -> None:
        """Empty a position."""
        self._held.drop(position)
        self._stop_training(position)

    def pair(self, position: int) -> Pair | None:
        """The factor pair stored at a position."""
        return self._held.pair(position)

    def trainable(self, name: str) -> tuple[nn.Parameter, nn.Parameter]:
        """Make an adapter's factors parameters of this layer: `lora_a` and `lora_b`, those of one adapter at a time.

        Shapes: lora_a (rank, in_features), lora_b (out_features, rank), without the scaling. Of rank 0 the layer is
        its base.

        Raises:
            InvalidInput: there is no such adapter here, or another one trains.
        """
        at, held = self.table.position.get(name, BASE), self._held
        if held.training is not None:
            if held.training.position != at:
                raise InvalidInput("another adapter of this layer trains already", field="adapter")
            return held.training.lora_a, held.training.lora_b
        pair = held.pair(at)
        if pair is None:
            raise InvalidInput(f"this layer has no adapter {name!r}", field="adapter")
        lora_a, lora_bt, left = pair
        scaling = held.scaling[at]
        if left != scaling:  # an optimizer must see B itself, not B times its scaling
            lora_bt = lora_bt / scaling
        self.lora_a, self.lora_b = nn.Parameter(lora_a), nn.Parameter(lora_bt.t().contiguous())
        held.drop(at)  # with all copies of what now changes
        held.training = TrainedFactors(at, self.lora_a, self.lora_b, scaling)
        return self.lora_a, self.lora_b

    def _stop_training(self, position: int) -> None:
        held = self._held
        if held.training is not None and held.training.position == position:
            held.training = self.lora_a = self.lora_b = None

    def _check(self, name: str | None, lora_a: Tensor, lora_b: Tensor) -> None:
        a, b = lora_a.shape, lora_b.shape
        if len(a) != 2 or len(b) != 2 or a[1] != self.in_features or b[0] != self.out_features or a[0] != b[1]:
            raise InvalidInput(
                f"adapter {name!r} has lora_a {tuple(lora_a.shape)} and lora_b {tuple(lora_b.shape)}; this layer takes "
                f"(rank, {self.in_features}) and ({self.out_features}, rank)",
                field="adapter",
            )

    # Products

    def forward(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        """The layer's output under the selection of this thread, or that of the table.

        Args:
            x: (..., in_features).
            rows: from `AdapterTable.rows`: each row of the batch its own adapter; rows of x beyond the first dimension
                belong to that of their place in it.
        """
        selection = own_selection() or self.table.selection
        rows = rows or selection.rows
        if x.dim() == 2 or (self._join == "apart" and rows is None):
            return self._product(x, selection, rows)
        y = self._product(x.reshape(-1, self.in_features), selection, rows)
        return y.view(*x.shape[:-1], self.out_features)

    def _product(self, x: Tensor, selection: Selection, rows: Rows | None) -> Tensor:
        if rows is not None:
            return self._mixed(x, rows)
        if selection.weights is not None:
            merged = selection.weights.get(self.name)
            if merged is None:
                return self._base(x)
            own = None if selection.biases is None else selection.biases.get(self.name)
            return linear(x, merged, self.base_layer.bias if own is None else own)
        at = selection.index
        held = self._held
        pair = held.pair(at) if selection.pairs is None else selection.pairs.get(self.name)
        if pair is None:
            return self._base(x)
        lora_a, lora_bt, scaling = pair
        if self._join == "apart":
            return self._apart(x, lora_a, lora_bt, scaling)
        if x.dtype is not lora_a.dtype:
            return self._added(x, linear(x.to(lora_a.dtype), lora_a), lora_bt, scaling)
        if torch.is_grad_enabled() and (x.requires_grad or lora_a.requires_grad or lora_bt.requires_grad):
            if self._plain:
                return lora_linear(x, self.weight, self.bias, lora_a, lora_bt, scaling)
            return self._apart(x, lora_a, lora_bt, scaling)
        if self._join == "float32" and selection.pairs is None and (wide := held.wide[at]) is not None:
            return self._base(x).add_((x.float() @ wide[0]) @ wide[1])
        return self._added(x, linear(x, lora_a), lora_bt, scaling)

    def _apart(self, x: Tensor, lora_a: Tensor, lora_bt: Tensor, scaling: float) -> Tensor:
        """Out of place, base first: the operations, and their order in backward, are PEFT's."""
        return self._base(x) + (linear(x, lora_a) @ lora_bt) * scaling

    def _mixed(self, x: Tensor, rows: Rows) -> Tensor:
        batch = self._held.batch
        if batch is None or batch.rows is not rows:
            # Not in the caller's inference mode: a later call under autograd may find it.
            with torch.inference_mode(False):
                batch = Batch(rows, self._held)
            self._held.batch = batch if batch.reusable else None
        if batch.lora_a is None:
            return self._base(x)
        per_row, rest = divmod(x.shape[0], len(rows.positions))
        if rest:
            raise InvalidInput(f"{x.shape[0]} rows do not divide among {len(rows.positions)} adapters", field="rows")
        h = linear(x if x.dtype is batch.lora_a.dtype else x.to(batch.lora_a.dtype), batch.lora_a)
        if per_row == 1:
            h = h.mul_(batch.mask)
        else:
            h.view(len(rows.positions), per_row, -1).mul_(batch.mask[:, None])
        return self._added(x, h, batch.lora_bt, batch.scaling)

    def _added(self, x: Tensor, h: Tensor, lora_bt: Tensor, scaling: float) -> Tensor:
        """The base's output plus scaling · h·Bᵀ."""
        if self._packed is not None and self._join == "epilogue" and not torch.is_grad_enabled():
            if scaling != 1.0:
                h.mul_(scaling)
            return self._packed(x, self.base_layer.bias, add=h @ lora_bt)
        y = self._base(x)
        if y.dtype is not lora_bt.dtype or y.requires_grad:
            return y + (h @ lora_bt).mul(scaling).to(y.dtype)
        return y.addmm_(h, lora_bt, alpha=scaling)

    def _base(self, x: Tensor) -> Tensor:
        if not self._plain:
            y: Tensor = self.base_layer(x)
            return y
        frozen = self._frozen
        if self._packed is not None and not torch.is_grad_enabled():
            return self._packed(x, frozen["bias"])
        return linear(x, frozen["weight"], frozen["bias"])  # type: ignore[arg-type]  # a Linear's weight is never None


def put_adapter(layers: Mapping[str, LoraLinear], position: int, factors: Mapping[str, Factors]) -> None:
    """Put an adapter at a position of all layers of a model; those that it does not adapt are empty there.

    Args:
        layers: by name.
        position: in the table that they share.
        factors: by the layer's name; names without a layer are left out.

    Raises:
        InvalidInput: something does not fit; then nothing has changed.
    """
    given = [(layer, found) for name, layer in layers.items() if (found := factors.get(name)) is not None]
    for layer, found in given:
        layer.check(found)
    laid = laid_out([(layer._own(found.lora_b), found.scaling) for layer, found in given])
    for (layer, found), pair in zip(given, laid, strict=True):
        layer._hold(position, found.lora_a, found.lora_b, found.scaling, pair)
    for name, layer in layers.items():
        if name not in factors:
            layer.drop(position)
