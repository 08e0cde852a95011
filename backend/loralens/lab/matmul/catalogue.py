"""Names and descriptions of all variants. The classes are in the modules beside; a test holds the two together.

A way stands here because it wins somewhere, because it is the usual one, or because its price teaches something; its
description says which. A reference (`dense`, `dense_again`) is what the others are measured by.
"""

# a table: one variant, one line
from __future__ import annotations

from typing import Any, Final

from loralens.lab.words import Mode, VariantInfo

REFERENCE: Final = "dense"
NOISE: Final = "dense_again"
EAGER: Final[dict[str, str]] = {"forward": "eager", "training": "eager", "adapters": "loop_adapters"}
"""PEFT's form of each mode: errors are bounded by its error."""


def _rows(mode: Mode, *rows: tuple[Any, ...]) -> list[VariantInfo]:
    return [
        VariantInfo(id=row[0], name=row[1], group=row[2], mode=mode, honest=row[3], description=row[4]) for row in rows
    ]


VARIANTS: Final[list[VariantInfo]] = [
    *_rows(
        "forward",
        ("dense", "dense x·Wᵀ", "dense", False, "The frozen layer alone: the denominator of every ratio."),
        ("dense_again", "dense, second copy", "dense", False, "The same call once more: its distance from 1 is noise."),
        ("eager", "LoRA, PEFT's form", "lora", True, "linear, linear, linear, scale, add: seven passes over the output."),
        ("addmm", "LoRA, addmm in place", "lora", True, "The last product adds into the output, the scale inside: the least passes without packing."),
        ("wrong_order", "wrong order: x·(W + s·B·A)ᵀ", "lesson", False, "Forms the full-size update in every call: what the order of products costs."),
        ("merged", "merged into W", "merged", False, "As fast as dense, but one adapter only, and W is changed."),
        ("peft", "PEFT layer, default settings", "peft", True, "peft.tuners.lora.Linear with its default adapter dtype: float32 next to W."),
        ("peft_same_dtype", "PEFT layer, adapter in W's dtype", "peft", True, "autocast_adapter_dtype=False: what the casts of the row above cost."),
        ("compiled", "torch.compile", "compiled", True, "PEFT's form through TorchInductor; compile time apart."),
        ("packed_dense", "dense, prepacked", "packed", False, "The frozen layer in oneDNN's layout: the fair second reference."),
        ("packed_addmm", "LoRA on prepacked W", "packed", True, "addmm in place after the prepacked base: wins on CPUs where the product is long."),
        ("packed_epilogue", "LoRA first, prepacked W adds it", "packed", True, "The base's product adds the adapter's part: wins with few rows of 16 bits."),
        ("packed_float32", "LoRA in float32 next to prepacked W", "packed", True, "A and B kept in float32, one rounding: wins with one row of 16 bits."),
        ("packed_hint16", "LoRA on W prepacked for 16 rows", "packed", True, "Another layout: better from 16 rows on."),
        ("packed_touch", "dense, prepacked, A and B only read", "lesson", False, "The least that an adapter kept apart costs."),
        ("own", "LoraLinear (this package's layer)", "own", True, "The form that the cost model picks for these sizes."),
        ("graph_dense", "dense, CUDA graph", "gpu", False, "Replayed without launch cost: the fair reference of the next."),
        ("graph_addmm", "LoRA addmm, CUDA graph", "gpu", True, "All kernels of a call replayed with one launch."),
        ("triton_split", "LoRA, split Triton kernel", "gpu", True, "h = x·Aᵀ first; one kernel then adds h·Bᵀ to x·Wᵀ."),
    ),
    *_rows(
        "training",
        ("dense", "W frozen, dx only", "dense", False, "The least a training step does to pass through: the denominator."),
        ("dense_again", "W frozen, second copy", "dense", False, "The same once more: its distance from 1 is noise."),
        ("full_gradient", "full fine-tuning: dx and dW", "dense", False, "What LoRA saves: the gradient of all of W."),
        ("eager", "LoRA, PEFT's form", "lora", True, "Autograd keeps x·Aᵀ and its kin."),
        ("own", "LoraLinear (this package's layer)", "own", True, "A hand-written backward that keeps nothing but x."),
        ("compiled", "torch.compile", "compiled", True, "PEFT's form through TorchInductor, forward and backward."),
        ("peft", "PEFT layer, default settings", "peft", True, "peft.tuners.lora.Linear with its default adapter dtype: float32 next to W."),
    ),
    *_rows(
        "adapters",
        ("dense", "dense x·Wᵀ", "dense", False, "The frozen layer alone, no adapter: the denominator."),
        ("dense_again", "dense, second copy", "dense", False, "The same call once more: its distance from 1 is noise."),
        ("loop_requests", "loop over requests", "batch", True, "Each request by itself: the price of not batching."),
        ("loop_adapters", "loop over adapters (PEFT's form)", "batch", True, "Rows gathered by adapter, added back."),
        ("gather_bmm", "gather + bmm (BGMV)", "batch", True, "Each request's factors copied side by side, two batched products."),
        ("grouped_mm", "F.grouped_mm", "batch", True, "PyTorch's own product over rows sorted by adapter (SGMV)."),
        ("stacked_mask", "stacked + mask", "batch", True, "One product over all adapters, foreign columns masked out."),
        ("packed_dense", "dense, prepacked", "packed", False, "The frozen layer in oneDNN's layout."),
        ("packed_stacked", "stacked + mask on prepacked W", "packed", True, "Four operations on a prepacked base."),
        ("packed_stacked_epilogue", "stacked + mask first, prepacked W adds it", "packed", True, "Added in the epilogue."),
        ("merge_switch", "merge and unmerge per adapter", "lesson", False, "Rewrites W twice per adapter, and wears it out."),
        ("peft_mixed", "PEFT adapter_names", "peft", True, "PEFT's mixed-batch forward."),
        ("own", "LoraLinear (this package's layer)", "own", True, "The form that the cost model picks for these sizes."),
    ),
]  # fmt: skip


def of_mode(mode: Mode) -> list[VariantInfo]:
    """The variants of a mode, in the order of display."""
    return [variant for variant in VARIANTS if variant.mode == mode]
