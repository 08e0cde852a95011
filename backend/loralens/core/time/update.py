"""What an optimizer step moves: how often each trained value, its gradient and its moments are read or written.

Counted from the code of each optimizer: torch 2.13 torch/optim/adam.py (`_fused_adam`: 4 reads and 3 writes;
`_multi_tensor_adam` and `_single_tensor_adam`: nine operations that each read and write whole tensors), bitsandbytes 0.50
(one kernel over 8-bit moments), transformers 5.23 `Adafactor`. Clipping, which trainers do by default, reads the gradients
twice and writes them once. What is not listed is taken as AdamW's loop: an assumption.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.step.optimizer import Trained
from loralens.core.tape.size import ZERO, Size, share

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe

CLIPPED: Final = 3
UNFUSED: Final = 20
PASSES: Final = {
    "adamw_fused": 7, "adamw_8bit": 4, "paged_adamw_8bit": 4, "adamw_4bit": 4, "paged_adamw_32bit": 7, "sgd": 3,
    "sgd_momentum": 7, "lion": 5, "lion_8bit": 3, "adafactor": 16,
}  # fmt: skip
KERNELS: Final = {
    "adamw_fused": 0.05, "adamw_foreach": 0.3, "sgd": 0.3, "sgd_momentum": 0.3, "adamw_8bit": 1.0, "paged_adamw_8bit": 1.0,
    "paged_adamw_32bit": 1.0, "adamw_4bit": 1.0, "lion": 1.0, "lion_8bit": 1.0, "ademamix": 1.0, "ademamix_8bit": 1.0,
}  # fmt: skip
"""Per trained tensor; fused and foreach kernels take many tensors at once, bitsandbytes one each. Counted roughly."""
LOOP_KERNELS: Final = 12.0


def update_bytes(trained: Iterable[Trained], optimizer: str, *, clipped: bool = True) -> Size:
    """Bytes that a step reads and writes."""
    passes = PASSES.get(optimizer, UNFUSED) + (CLIPPED if clipped else 0)
    total = ZERO
    for tensor in trained:
        total = total + tensor.numel * (ITEM_BYTES[tensor.dtype] * tensor.count * passes)
    return total


def update_of(trained: Iterable[Trained], recipe: Recipe) -> Size:
    """Bytes that one GPU's part of a step reads and writes: of all that trains, or of its shards."""
    p, clipped = recipe.parallelism, recipe.max_grad_norm is not None
    parts = p.sharding if p.strategy not in ("none", "ddp") else 1
    own: dict[int, list[Trained]] = {}
    for tensor in trained:
        own.setdefault(tensor.shared_by or parts, []).append(tensor)
    total = ZERO
    for divided, tensors in own.items():
        total = total + share(update_bytes(tensors, recipe.optimizer, clipped=clipped), divided)
    return total


def update_kernels(trained: Iterable[Trained], optimizer: str) -> float:
    """Kernels that a step launches."""
    return KERNELS.get(optimizer, LOOP_KERNELS) * sum(tensor.count for tensor in trained)
