"""The quantized base: bitsandbytes' own layers, with packed weights and their tables on the fake GPU.

On the meta device the layers hold unpacked weights (PEFT needs only their shapes and class). Packing happens on the
fake GPU with bitsandbytes' own functions, so the tables are those that it really makes. A fake tensor cannot be
`Params4bit`; the packed weight is a plain parameter that carries the same attributes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final

import torch

from loralens.core.errors import DependencyMissing, InvalidInput
from loralens.core.question.quantization import Quantization
from loralens.extras import how_to_install
from loralens.lab.trace.ledger import TraceLedger


def bitsandbytes_there() -> bool:
    """Whether bitsandbytes is installed."""
    return find_spec("bitsandbytes") is not None


def hush_bitsandbytes() -> None:
    """Its warnings are about kernels for the CPU and about casts that are known here; PEFT imports it."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


# layers whose weight the model's own code reads: packed, its first step fails (`llm_int8_skip_modules` leaves them out)
_UNPACKED: Final = {
    "mamba": ["dt_proj"],
    **{key: ["prediction_coefs", "correction_coefs"] for key in ("gemma3n", "gemma3n_text")},
}


def quantize(model: Any, quantization: Quantization) -> None:
    """Replace linear layers by bitsandbytes' as `from_pretrained(quantization_config=...)` does.

    Raises:
        InvalidInput: a type that has no kernels to trace here.
        DependencyMissing: bitsandbytes is not installed.
    """
    if quantization.type not in ("nf4", "fp4", "int8"):
        raise InvalidInput(
            f"quantization {quantization.type} cannot be traced; allowed: nf4, fp4, int8",
            field="recipe.quantization.type",
            hint="loralens memory computes it",
        )
    if not bitsandbytes_there():
        raise DependencyMissing("tracing a quantized base needs bitsandbytes", hint=how_to_install("trace"))
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import HfQuantizer, _assign_is_quantized

    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    eight = quantization.type == "int8"
    settings = BitsAndBytesConfig(
        load_in_8bit=eight,
        load_in_4bit=not eight,
        bnb_4bit_quant_type="nf4" if eight else quantization.type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, quantization.compute_dtype),
    )
    whole = list(getattr(model, "_keep_in_fp32_modules", None) or [])  # T5's `wo`; as `from_pretrained` does
    whole += _UNPACKED.get(model.config.model_type, [])
    skipped = None if quantization.skip_modules is None else list(quantization.skip_modules)
    replace_with_bnb_linear(model, HfQuantizer.get_modules_to_not_convert(model, skipped, whole), settings)
    _assign_is_quantized(model)
    for name, parameter in model.named_parameters():
        if parameter.dtype != dtypes[name] and type(parameter) is torch.nn.Parameter:  # new biases, made in float32
            parameter.data = parameter.data.to(dtypes[name])
        if kept_wide(name, whole):
            parameter.data = parameter.data.to(torch.float32)
    model.is_loaded_in_8bit = eight
    model.is_loaded_in_4bit = not eight
    model.is_quantized = True


def kept_wide(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter lies in one of the modules that stay float32, named by one part of its path or by several.

    Source: transformers 5.23 modeling_utils.py, `_get_dtype_plan`.
    """
    return any(f".{module}." in f".{name}." for module in modules)


def is_packed(tensor: torch.Tensor) -> bool:
    """Whether this is one of bitsandbytes' weights."""
    return type(tensor).__name__ in ("Params4bit", "Int8Params")


def fresh(tensor: Any, module: Any, dtype: torch.dtype, ledger: TraceLedger) -> torch.nn.Parameter:
    """The packed weight on the fake GPU; tables are booked beside it."""
    from bitsandbytes import functional

    shape = tensor.shape
    whole = torch.empty(shape, dtype=dtype, device="cuda")
    with ledger.naming("quantization_state", ledger.owner or ""):
        if type(tensor).__name__ == "Params4bit":
            packed, state = functional.quantize_4bit(
                whole, compress_statistics=tensor.compress_statistics, quant_type=tensor.quant_type
            )
            weight = torch.nn.Parameter(packed, requires_grad=False)
            weight.quant_state = module.quant_state = state  # type: ignore[attr-defined]
        else:
            packed = torch.empty(shape, dtype=torch.int8, device="cuda")
            weight = torch.nn.Parameter(packed, requires_grad=False)
            weight.CB = packed  # type: ignore[attr-defined]
            weight.SCB = torch.empty(shape[0], dtype=torch.float32, device="cuda")  # type: ignore[attr-defined]
    index = ledger.live_index(packed)
    if index is not None:
        ledger.storages[index].kind = "weight"
    return weight


@contextmanager
def dequantized_for_peft() -> Iterator[None]:
    """PEFT (DoRA) unpacks base weights by their class, which fake tensors cannot have: answer in its place."""
    from peft.tuners.lora import dora, variants
    from peft.utils import integrations

    original = integrations.dequantize_module_weight

    def unpacked(module: Any) -> Any:
        weight = module.weight
        if is_packed(weight):
            return weight  # on the meta device, not packed yet
        if getattr(weight, "quant_state", None) is not None:
            from bitsandbytes import functional

            return functional.dequantize_4bit(weight.data, weight.quant_state)
        if weight.dtype == torch.int8:
            from bitsandbytes import functional

            return functional.int8_vectorwise_dequant(weight.data, module.state.SCB)
        return original(module)

    places = [place for place in (dora, variants, integrations) if hasattr(place, "dequantize_module_weight")]
    for place in places:
        place.dequantize_module_weight = unpacked
    try:
        yield
    finally:
        for place in places:
            place.dequantize_module_weight = original


def equip(ledger: TraceLedger) -> None:
    """Teach the ledger what bitsandbytes' CUDA kernels allocate; nothing to do when it is not installed."""
    if not bitsandbytes_there():
        return

    def gemm_4bit(
        _func: Any,
        a: torch.Tensor,
        b: torch.Tensor,
        shape: Any,
        absmax: torch.Tensor,
        _blocksize: int,
        _quant_type: str,
        bias: torch.Tensor | None = None,
        absmax_8bit: torch.Tensor | None = None,
        absmax_code: torch.Tensor | None = None,
        absmax_offset: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The kernel for more than a few tokens: the weight is unpacked, then multiplied.

        Source: bitsandbytes/backends/cuda/ops.py (`_dequant_linear_fallback`), 0.50.2; it is taken for more than
        1,536 tokens on every card, and for fewer on most.
        """
        with ledger:
            if absmax_8bit is not None and absmax_offset is not None:
                unpacked = torch.empty_like(absmax_8bit, dtype=torch.float32)
                _absmax = unpacked + absmax_offset  # held until the end, as there
            whole = torch.empty(tuple(shape), dtype=a.dtype, device=a.device)
            return torch.nn.functional.linear(a, whole, bias)

    def vectorwise(_func: Any, a: torch.Tensor, threshold: float = 0.0) -> Any:
        """Without outlier columns: their number depends on values (an assumption).

        Source: bitsandbytes/backends/cuda/ops.py (`int8_vectorwise_quant`), 0.50.2.
        """
        with ledger:
            rows = a.shape[:-1].numel()
            stats = torch.empty(rows, dtype=torch.float32, device=a.device)
            out = torch.empty(a.shape, dtype=torch.int8, device=a.device)
            if not threshold:
                return out, stats, None
            large = a.abs() >= threshold
            columns = torch.empty(0, dtype=torch.int64, device=a.device)
            del large
            return out, stats, columns

    def dequantize_mm(
        _func: Any, a: torch.Tensor, _rows: Any, _columns: Any, dtype: Any = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The kernel writes float16; other dtypes and biases come after it (bitsandbytes/backends/cuda/ops.py)."""
        with ledger:
            out = torch.empty_like(a, dtype=torch.float16)
            if bias is not None and bias.dtype != torch.float16:
                out = out.add_(bias)
            return out.to(dtype or torch.float16)

    def mixed(
        _func: Any,
        a: torch.Tensor,
        ca: torch.Tensor,
        cb: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        _outliers: Any = None,
        bias: torch.Tensor | None = None,
    ) -> Any:
        """Without outlier columns nothing is added to the 8-bit product."""
        with ledger:
            nothing = torch.empty(0, dtype=a.dtype, device=a.device)
            return scaled(None, ca, cb, rows, columns, bias, a.dtype), nothing

    def scaled(
        _func: Any,
        a: torch.Tensor,
        b: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """32-bit sums first, then scaled down (bitsandbytes/backends/default/ops.py, int8_scaled_mm)."""
        with ledger:
            sums = torch.empty((*a.shape[:-1], b.shape[0]), dtype=torch.int32, device=a.device)
            return dequantize_mm(None, sums, rows, columns, dtype, bias)

    ops = torch.ops.bitsandbytes
    ledger.overrides[ops.int8_mixed_scaled_mm.default] = mixed
    ledger.overrides[ops.int8_scaled_mm.default] = scaled
    ledger.overrides[ops.int8_mm_dequant.default] = dequantize_mm
    ledger.overrides[ops.gemm_4bit.default] = gemm_4bit
    ledger.overrides[ops.int8_vectorwise_quant.default] = vectorwise
