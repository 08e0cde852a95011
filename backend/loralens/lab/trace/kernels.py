"""Let each operator on fake CUDA tensors behave as its CUDA kernel: the right attention kernel, no decompositions.

A CPU build holds no CUDA kernels, so an operator with a composite fallback would decompose into pieces that never
exist on a card (`silu_backward` into seven); `scaled_dot_product_attention` would fall to its math path there, and
ask the missing card in a build of CUDA. The registrations here are for the CUDA dispatch keys only, which nothing else
uses in a process that sees no card.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from loralens.core.question.accelerator import BEFORE_8, CUDA

_libraries: list[torch.library.Library] = []
_card: list[str] = [CUDA]  # which of the two accelerators of NVIDIA is traced
# operators with a CUDA kernel beside a composite fallback (aten/src/ATen/native/native_functions.yaml)
WHOLE: Final = ("silu_backward", "mish_backward")
# of masks that a step indexes with: how much is true, by their shape; two numbers: of one laid out, and of one spread to it.
# `()`: a truth value that is read is true
CHOSEN: Final[dict[tuple[int, ...], int | tuple[int, int]]] = {}
_ALIGNMENT: Final = 16  # the efficient kernel reads masks in 16-byte rows (sdp_utils: pad_bias)


def install() -> None:
    """Register once per process; where a build of CUDA has a kernel, that stays."""
    if _libraries:
        return
    library = torch.library.Library("aten", "IMPL")
    for name in WHOLE:
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "CUDA"):
            continue
        library.impl(name, torch.library.fallthrough_kernel, "AutogradCUDA")
        library.impl(name, _like_gradient, "CUDA")
    library.impl("scaled_dot_product_attention", attention, "AutogradCUDA")
    _libraries.append(library)


def trace_on(accelerator: str) -> None:
    """From now on the attention kernels are those of this accelerator."""
    _card[:] = [accelerator]


def _like_gradient(gradient: torch.Tensor, input_: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(gradient)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`scaled_dot_product_attention` with the kernel that the traced card picks.

    Source: aten/src/ATen/native/transformers/attention.cpp (`scaled_dot_product_attention`) and
    cuda/sdp_utils.cpp (`can_use_flash_attention`, `can_use_mem_efficient_attention`), torch 2.13.
    """
    aten = torch.ops.aten
    chosen = choose(query, key, value, attn_mask, is_causal=is_causal, enable_gqa=enable_gqa)
    if chosen == "flash":
        width = query.shape[-1]
        scale = width**-0.5 if scale is None else scale
        if width % 8:
            query, key, value = (torch.nn.functional.pad(x, (0, 8 - width % 8)) for x in (query, key, value))
        output = aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[
            0
        ]
        return output if output.shape[-1] == width else output[..., :width]
    if chosen == "efficient":
        mask = _mask_for_efficient(attn_mask, query, key)
        needs = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, mask, needs, dropout_p, is_causal, scale=scale
        )[0]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = _as_bias(attn_mask, query)
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )[0]


def choose(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    *,
    is_causal: bool,
    enable_gqa: bool,
) -> str:
    """`flash`, `efficient` or `math`: the first that CUDA's rules allow, in this order."""
    if query.dim() != 4 or (_card == [BEFORE_8] and query.dtype == torch.bfloat16):
        return "math"
    widths = {x.shape[-1] for x in (query, key, value)}
    same_heads = query.shape[1] == key.shape[1] == value.shape[1]
    grouped = enable_gqa and key.shape[1] == value.shape[1] and query.shape[1] % key.shape[1] == 0
    if (
        _card == [CUDA]
        and query.dtype in (torch.bfloat16, torch.float16)
        and attn_mask is None
        and len(widths) == 1
        and max(widths) <= 256
        and (same_heads or grouped)
        and not (is_causal and query.shape[2] != key.shape[2])
    ):
        return "flash"
    aligned = 16 // query.element_size()
    if same_heads and all(width % aligned == 0 for width in widths) and query.shape[-1] == key.shape[-1]:
        return "efficient"
    return "math"


def _as_bias(mask: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """A boolean mask as zeros and minus infinities (`convert_boolean_attn_mask`)."""
    minus = torch.full((), -torch.inf, dtype=query.dtype, device=query.device)
    return torch.where(mask, torch.zeros((), dtype=query.dtype, device=query.device), minus)


def _mask_for_efficient(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = _as_bias(mask, query)
    length = mask.shape[-1]
    if length % _ALIGNMENT:  # padded to aligned rows, then cut: the storage stays the padded one
        mask = torch.nn.functional.pad(mask, (0, _ALIGNMENT - length % _ALIGNMENT))[..., :length]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def known_values(func: Any, tensor: torch.Tensor) -> Any:
    """What code that reads a value finds: a mask that hides something, no infinities, a first step counted.

    Step counters lie on the host, a scaler's count of infinities on the device.
    """
    if tensor.dtype == torch.bool:
        return () in CHOSEN
    one = 1 if tensor.device.type == "cpu" else 0
    return float(one) if tensor.dtype.is_floating_point else one


def embedding_scratch(gradient: torch.Tensor, indices: torch.Tensor, *_rest: Any) -> tuple[int, ...]:
    """Sorting the indices: keys and values, in and out, 8 bytes each per token.

    Source: aten/src/ATen/native/cuda/Embedding.cu (`embedding_dense_backward_cuda`), torch 2.13.
    """
    return (4 * 8 * indices.numel(),)


def safe_softmax_scratch(scores: torch.Tensor, *_rest: Any) -> tuple[int, ...]:
    """Which scores are minus infinity, and which rows hold nothing else: one byte each, until the softmax is cleared.

    Source: aten/src/ATen/native/transformers/attention.cpp (`_safe_softmax`), torch 2.13; a CPU profile of it shows them.
    """
    return scores.numel(), scores.numel() // max(1, scores.shape[-1])


def grouped_mm(func: Any, a: torch.Tensor, b: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
    """Grouped matrix products in float32 and float16 too: CUDA takes them, one group after the other, without scratch.

    Source: aten/src/ATen/native/cuda/GroupedBlas.cpp (`_grouped_mm_cuda`, `_grouped_mm_fallback`), torch 2.13; only
    the shape rule for fake tensors insists on bfloat16.
    """
    if a.dtype == torch.bfloat16:
        result: torch.Tensor = func(a, b, *rest, **options)
        return result
    sketch = func(
        *(torch.empty_strided(x.shape, x.stride(), dtype=torch.bfloat16, device=x.device) for x in (a, b)),
        *rest,
        **options,
    )
    return torch.empty_strided(sketch.shape, sketch.stride(), dtype=a.dtype, device=a.device)


def masked_scatter_scratch(into: torch.Tensor, *_rest: Any) -> tuple[int, ...]:
    """The mask laid out whole, one byte per element, and its prefix sum, eight.

    Source: aten/src/ATen/native/cuda/IndexKernel.cpp (`masked_scatter_cuda`, `launch_masked_scatter_kernel`), torch 2.13.
    """
    return into.numel(), 8 * into.numel()


def masked_select_scratch(gradient: torch.Tensor, mask: torch.Tensor, sizes: Any) -> tuple[int, ...]:
    """The positions of the selected elements, an int64 in each dimension.

    Source: aten/src/ATen/native/cuda/IndexKernel.cpp (`masked_select_cuda`, by `nonzero`), torch 2.13.
    """
    return (8 * gradient.dim() * math.prod(sizes),)


def index(func: Any, x: torch.Tensor, indices: Any) -> Any:
    """`x[mask]` chooses as much as is known of the mask (`CHOSEN`), else everything."""
    chosen: list[Any] = []
    for mask in indices:
        if mask is None or mask.dtype != torch.bool:
            chosen.append(mask)
            continue
        chosen += [torch.empty(_true(mask), dtype=torch.int64, device=mask.device) for _ in mask.shape]
    return func(x, chosen)


def _true(mask: torch.Tensor) -> int:
    number = CHOSEN.get(tuple(mask.shape), mask.numel())
    return number if isinstance(number, int) else number[mask.stride(-1) == 0]


def mask_scratch(_x: torch.Tensor, indices: Any, *_rest: Any, **_words: Any) -> tuple[int, ...]:
    """A mask becomes numbers of places, an int64 in each dimension, which last as long as the kernel.

    Source: aten/src/ATen/native/IndexingUtils.h (`expandTensors`), torch 2.13.
    """
    return tuple(8 * mask.dim() * _true(mask) for mask in indices if mask is not None and mask.dtype == torch.bool)


def mask_put_scratch(
    x: torch.Tensor, indices: Any, values: torch.Tensor, accumulate: bool = False, *_rest: Any
) -> tuple[int, ...]:
    """The same; what adds up has three more numbers for each place: its address, a wrapped number and their product.

    Then the addresses are sorted: addresses and places, in and out, which is no more. A mask of the first dimensions chooses whole slices,
    each of which is one place.
    Source: aten/src/ATen/native/cuda/Indexing.cu (`computeLinearIndex`, `index_put_with_sort_kernel`), torch 2.13.
    """
    taken = mask_scratch(x, indices)
    if not accumulate or not taken:
        return taken
    inside = x.shape[sum(1 if mask is None else mask.dim() for mask in indices) :].numel()
    return (sum(taken) + 3 * 8 * (values.numel() // max(1, inside)),)


class EqualShares:
    """`nonzero` in a loop over experts, whose result depends on the router: every expert is hit, by an equal share of tokens.

    Source: transformers 5.23, models/{dbrx,nllb_moe,switch_transformers}/modeling_*.py (`expert_hit`).
    """

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def __call__(self, func: Any, mask: torch.Tensor) -> Any:
        """Indices with the shape that equal shares give; anywhere else what the operator itself says."""
        inside = self._ledger.owners.inside
        if not inside or not type(inside[-1]).__name__.endswith("Experts"):
            return func(mask)
        experts = getattr(inside[-1], "num_experts", None)
        if experts is None and isinstance(inside[-1], torch.nn.ModuleDict):
            experts = len(inside[-1])
        if experts is None:  # some compute nothing (LongCat), and then an equal share is a guess
            return func(mask)
        rows = min(experts, mask.numel()) if mask.dim() == 1 else mask.numel() // experts
        return torch.empty_strided((rows, mask.dim()), (1, rows), dtype=torch.int64, device=mask.device)


def equip(ledger: Any) -> None:
    """Teach a ledger the operators whose CUDA kernels differ from what a fake tensor shows."""
    aten = torch.ops.aten
    ledger.overrides[aten._local_scalar_dense.default] = known_values
    ledger.overrides[aten._grouped_mm.default] = grouped_mm
    ledger.overrides[aten.index.Tensor] = index
    ledger.overrides[aten.nonzero.default] = EqualShares(ledger)
    ledger.workspaces[aten.index.Tensor] = mask_scratch
    for put in (aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default):
        ledger.workspaces[put] = mask_put_scratch
    ledger.workspaces[aten.embedding_dense_backward.default] = embedding_scratch
    ledger.workspaces[aten._safe_softmax.default] = safe_softmax_scratch
    ledger.workspaces[aten.masked_scatter.default] = masked_scatter_scratch
    ledger.workspaces[aten.masked_scatter_backward.default] = masked_select_scratch
