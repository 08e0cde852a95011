"""Quantized base weights: how many bytes they take, and what their product allocates.

Sources: bitsandbytes 0.50 `functional.quantize_4bit` (blocks of 64 values, float32 absmax; double quantization packs
the absmax to 8 bits in blocks of 256 with an offset), `autograd/_functions.py` (`MatMul4Bit`, `MatMul8bitLt`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.errors import InvalidInput
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.versions import FOUR_BIT_FORGETS_INPUT_SINCE, framework, version
from loralens.core.tape import ops
from loralens.core.tape.cost import NOTHING, PRODUCTS, Cost, Costs, moving, rate_of, unpacked
from loralens.core.tape.size import ONE, Size
from loralens.core.tape.work import bytes_of

if TYPE_CHECKING:
    from loralens.core.architecture.module import Linear
    from loralens.core.question.quantization import Quantization
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Packing, Parameter
    from loralens.core.tape.tape import Tape

BLOCK = 64
ABSMAX_BLOCK = 256


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


@dataclass(frozen=True, slots=True)
class FourBit:
    """bitsandbytes' NF4 and FP4."""

    double_quant: bool
    compute_dtype: str
    keeps_input: bool = False  # bitsandbytes before 0.43
    unpacks_to_half: bool = False  # Fabric's plugin quantizes from float16: unpacked, then copied to the compute dtype
    on_load = True  # the 16-bit weight is moved to the device first, and packed there
    rate = "nf4"

    def tensors(self, parameter: Parameter) -> list[int]:
        """Packed values, the 16-entry code table, scales and, with double quantization, their own, its table and offset."""
        values = parameter.numel[0]
        blocks = _ceil(values, BLOCK)
        scales = [blocks, _ceil(blocks, ABSMAX_BLOCK) * 4, 256 * 4, 4] if self.double_quant else [blocks * 4]
        return [_ceil(values, 2), 16 * 4, *scales]

    def bytes(self, parameter: Parameter) -> Size:
        """All of them."""
        return ONE * sum(self.tensors(parameter))

    def linear(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """Product in the compute dtype, returned in the input's dtype; the weight is unpacked again for backward."""
        dtype = x.dtype
        x = ops.cast(t, x, self.compute_dtype, f"{layer.label}: input cast to the compute dtype")
        if x.dtype == dtype:
            x = x.view()
        # double quantization: the scales are unpacked and offset, two float32 tensors, before the weight is
        scales = 2 * 4 * _ceil(layer.weight.numel[0], BLOCK) if self.double_quant else 0
        out = unpacked_product(t, layer, x, self.compute_dtype, scales, 1 + self.unpacks_to_half, autocast=t.autocast)
        if self.keeps_input:
            t.keep(out, x)
        return ops.cast(t, out, dtype, f"{layer.label}: result cast back")


def unpacked_product(
    t: Tape, layer: Linear, x: Tensor, dtype: str, scales: int = 0, copies: int = 1, *, autocast: str | None = None
) -> Tensor:
    """`x @ unpack(W).T` as one autograd function that keeps only the packed weight; `scales`: bytes of unpacked scales.

    `autocast`: the dtype in which autocast lets the product run, where it looks into the function.
    """
    numel = layer.weight.numel * copies
    unpacked = t.new(ONE * scales, "uint8", 1, f"{layer.label}: scales unpacked for the product", "temporaries")
    whole = t.new(numel, dtype, layer.in_features, f"{layer.label}: weight unpacked for the product", "temporaries")
    out = t.new(ops.divide(x.numel, x.width) * layer.out_features, dtype, layer.out_features, layer.label)
    t.end(whole, unpacked)
    source = (x.numel, x.dtype, x.width)

    def apply(g: Tensor) -> Tensor:
        label = f"{layer.label}: weight unpacked for backward"
        with t.temporary(numel, dtype, layer.in_features, label, "temporaries"):
            return t.new(*source, f"gradient: {layer.label} input", "temporaries")

    t.record(layer.label, [out], [x], [], apply, lambda: packed_costs(layer, x, out, dtype, autocast))
    return out


def packed_costs(layer: Linear, x: Tensor, out: Tensor, dtype: str, autocast: str | None = None) -> Costs:
    """The weight is unpacked, and multiplied with; so again for the gradient of the input.

    Under autocast the product runs in its dtype whatever the weight was unpacked to, and weight and input are cast first; the
    gradient arrives in that dtype, so backward does the same. Source: bitsandbytes 0.50 backends/cuda/ops.py
    (`_dequant_linear_fallback`: `F.linear`, which autocast casts for), autograd/_functions.py (`MatMul4Bit.backward`).
    """
    packing, weights = layer.weight.packing, layer.weight.numel
    if packing is None:
        return NOTHING
    ran = autocast or dtype
    moved = bytes_of(x) + bytes_of(out) + weights * ITEM_BYTES[ran]
    product = Cost(PRODUCTS, rate_of(ran), ops.divide(x.numel, x.width).times(weights) * 2, moved)
    both = [unpacked(packing.rate, weights, dtype), product]
    if ran != dtype:
        both.insert(1, moving((weights + x.numel) * (ITEM_BYTES[dtype] + ITEM_BYTES[ran])))
    return both, both


@dataclass(frozen=True, slots=True)
class EightBit:
    """bitsandbytes' LLM.int8(): int8 values with one float32 scale per output row; outliers stay in 16 bits."""

    compute_dtype: str
    on_load = True  # the 16-bit weight is moved to the device first, and packed there
    rate = "int8"

    def tensors(self, parameter: Parameter) -> list[int]:
        """One byte a value, four a row."""
        rows = parameter.shape[0]
        assert isinstance(rows, int)
        return [parameter.numel[0], rows * 4]

    def bytes(self, parameter: Parameter) -> Size:
        """All of them."""
        return ONE * sum(self.tensors(parameter))

    def linear(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """The input is cast to float16 and quantized row by row; backward unpacks the weight.

        The function keeps its input as an attribute, not as a saved tensor: checkpointing cannot drop it, and it stays
        until the graph goes.
        """
        half = t.new(x.numel, "float16", x.width, f"{layer.label}: input in float16") if x.dtype != "float16" else None
        quantized = t.new(x.numel, "int8", x.width, f"{layer.label}: input in int8")
        t.end(half)
        rows = ops.divide(x.numel, x.width)
        out = t.new(rows * layer.out_features, x.dtype, layer.out_features, layer.label)
        t.end(quantized)
        numel, source = layer.weight.numel, (x.numel, x.dtype, x.width)

        def apply(g: Tensor) -> Tensor:
            label = f"{layer.label}: weight unpacked for backward"
            with t.temporary(numel, source[1], layer.in_features, label, "temporaries"):
                return t.new(*source, f"gradient: {layer.label} input", "temporaries")

        t.record(layer.label, [out], [x], [], apply, lambda: packed_costs(layer, x, out, source[1]))
        t.keep(out, x)
        return out


@dataclass(frozen=True, slots=True)
class Grouped:
    """Packed values with scale and zero per column group.

    Source: AutoGPTQ (`gptq`: float16 scales, packed zeros, an int32 group index per input), AutoAWQ's GEMM layout (`awq`: the
    same without an index), HQQ core/quantize.py (`hqq`: scale and zero in the compute dtype).
    """

    bits: int
    group_size: int
    compute_dtype: str
    layout: str = "gptq"
    on_load = False  # the checkpoint holds it packed
    rate = "gptq"

    def tensors(self, parameter: Parameter) -> list[int]:
        """bits/8 a value; a scale and a zero per output and group, the zero packed or not; GPTQ's index per input."""
        out_features, in_features = parameter.shape
        assert isinstance(out_features, int) and isinstance(in_features, int)
        groups = _ceil(in_features, self.group_size if self.group_size > 0 else in_features)
        zeros = groups * out_features * 2 if self.layout == "hqq" else groups * _ceil(out_features * self.bits, 8)
        index = [in_features * 4] if self.layout == "gptq" else []
        return [_ceil(out_features * in_features * self.bits, 8), groups * out_features * 2, zeros, *index]

    def bytes(self, parameter: Parameter) -> Size:
        """All of them."""
        return ONE * sum(self.tensors(parameter))

    def linear(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """As 4 bits: unpacked for the product and again for backward."""
        dtype = x.dtype
        x = ops.cast(t, x, self.compute_dtype, f"{layer.label}: input cast to the compute dtype")
        return ops.cast(t, unpacked_product(t, layer, x, self.compute_dtype), dtype, f"{layer.label}: result cast back")


@dataclass(frozen=True, slots=True)
class Float8:
    """float8_e4m3 base weights with one float32 scale per tensor, unpacked layer by layer."""

    compute_dtype: str
    on_load = False  # the checkpoint holds it packed
    rate = "fp8"

    def tensors(self, parameter: Parameter) -> list[int]:
        """One byte a value and one scale."""
        return [parameter.numel[0] * ITEM_BYTES["float8_e4m3"], 4]

    def bytes(self, parameter: Parameter) -> Size:
        """All of them."""
        return ONE * sum(self.tensors(parameter))

    def linear(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """Unpacked for the product and again for backward."""
        dtype = x.dtype
        x = ops.cast(t, x, self.compute_dtype, f"{layer.label}: input cast to the compute dtype")
        return ops.cast(t, unpacked_product(t, layer, x, self.compute_dtype), dtype, f"{layer.label}: result cast back")


def packing_for(quantization: Quantization, recipe: Recipe | None = None) -> Packing:
    """The packing of a recipe's `quantization`, as the recipe's versions do it; today's without a recipe."""
    dtype = quantization.compute_dtype
    match quantization.type:
        case "nf4" | "fp4":
            if recipe is None:
                return FourBit(quantization.double_quant, dtype)
            keeps = version(recipe, "bitsandbytes") < FOUR_BIT_FORGETS_INPUT_SINCE
            return FourBit(quantization.double_quant, dtype, keeps, framework(recipe) == "litgpt")
        case "int8":
            return EightBit(dtype)
        case "gptq4" | "gptq8":
            return Grouped(int(quantization.type[-1]), quantization.group_size, dtype)
        case "awq4" | "hqq4":
            return Grouped(4, quantization.group_size, dtype, quantization.type[:-1])
        case "fp8":
            return Float8(dtype)
    raise InvalidInput(f"unknown quantization {quantization.type!r}", field="quantization.type")
