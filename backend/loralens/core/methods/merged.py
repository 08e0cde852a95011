"""LoRA on a fused projection, as LitGPT does it: one A for all adapted parts, a grouped convolution for B, zeros elsewhere.

Source: Lightning-AI/litgpt lit_gpt/lora.py, `LoRAQKVLinear`. `index_copy` keeps its source for backward
(PyTorch tools/autograd/derivatives.yaml: the gradient is expanded to the source's shape).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.architecture.module import FusedLinear
from loralens.core.errors import InvalidInput
from loralens.core.tape import ops
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import RANK, Size
from loralens.core.tape.work import product

if TYPE_CHECKING:
    from loralens.core.architecture.module import Linear
    from loralens.core.question.recipe import Lora
    from loralens.core.tape.cost import Costs
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape


@dataclass(slots=True)
class MergedAdapter:
    """Adapters of some parts of a fused layer. Shapes: lora_a (rank * parts, in), lora_b (sum of their widths, rank)."""

    lora_a: Parameter
    lora_b: Parameter
    width: int  # of the adapted parts together
    dropout: float

    @staticmethod
    def for_parts(layer: FusedLinear, parts: tuple[str, ...], lora: Lora) -> MergedAdapter:
        """The adapter of the named parts.

        Raises:
            InvalidInput: DoRA or a rank of its own for a part, which LitGPT does not have.
        """
        if lora.use_dora or lora.rank_pattern:
            raise InvalidInput(
                "LitGPT has neither DoRA nor ranks by name",
                field="lora.use_dora" if lora.use_dora else "lora.rank_pattern",
                hint="leave litgpt out of the stack to compute PEFT's adapters",
            )
        width = sum(layer.parts[part] for part in parts)
        a = Parameter((RANK * len(parts), layer.in_features), role="adapter")
        b = Parameter((width, RANK), role="adapter")
        for parameter in (a, b):
            parameter.dtype = lora.adapter_dtype
        return MergedAdapter(a, b, width, lora.dropout)

    def parameters(self) -> dict[str, Parameter]:
        """lora_A and lora_B."""
        return {"lora_A": self.lora_a, "lora_B": self.lora_b}

    def forward(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """`pretrained + zero_pad(conv1d(A dropout(x))) * scaling`."""
        base = layer.base(t, x)
        rows = ops.divide(x.numel, x.width)
        low = ops.linear(t, ops.dropout(t, x, self.dropout, "LoRA: dropout"), self.lora_a, "LoRA: A x")
        update = t.replace(low, self._update(t, low, rows))
        if self.width < layer.out_features:
            update = _padded(t, update, layer.out_features)
        return ops.add(t, base, ops.scale(t, update, "LoRA: scaled update"), "LoRA: base plus update")

    def _update(self, t: Tape, low: Tensor, rows: Size) -> Tensor:
        """The grouped convolution: every part sees its own rows of A x."""
        weight = t.parameter(self.lora_b)
        out = t.new(rows * self.width, low.dtype, self.width, "LoRA: B A x")
        sizes = [(low.numel, low.dtype, low.width), (weight.numel, weight.dtype, weight.width)]

        def apply(g: Tensor) -> list[Tensor | None]:
            return [t.new(*size, "gradient: LoRA: B A x", "temporaries") for size in sizes]

        def costs() -> Costs:
            return product(out, low, weight, rows.times(weight.numel) * 2, (True, True), narrow=True)

        t.record("LoRA: B A x", [out], [low, weight], [low, weight], apply, costs)
        return ops.copy(t, out, "LoRA: update by token")


def _padded(t: Tape, update: Tensor, width: int) -> Tensor:
    """Zeros for the whole output, copied once more with the update in its place; the update is kept."""
    numel = ops.divide(update.numel, update.width) * width
    with t.temporary(numel, update.dtype, width, "LoRA: zeros for the parts without an adapter"):
        out = t.new(numel, update.dtype, width, "LoRA: padded update")
    size = (update.numel, update.dtype, update.width)
    t.record(
        "LoRA: padded update",
        [out],
        [update],
        [update],
        lambda g: t.new(*size, "gradient: LoRA: padded update", "temporaries"),
    )
    return out
