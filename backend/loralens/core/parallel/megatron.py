"""Megatron's DDP and distributed optimizer: float32 gradients in buffers that stand, float32 states divided.

Bytes of a 16-bit parameter: 6 and 12/d, or 18 where nothing is divided (`dp_replicate` as large as data parallel).

Sources: NVIDIA/Megatron-LM d98e8a64 docs/user-guide/features/dist_optimizer.md (the table), megatron/core/distributed/
param_and_grad_buffer.py (contiguous buffers of weights and of gradients; weights are gathered in place),
distributed_data_parallel.py (`main_grad`: a weight's own gradient is added and let go), optimizer/distrib_optimizer.py
(a float32 copy and two moments of this rank's part), megatron/training/arguments.py (`accumulate_allreduce_grads_in_fp32` is
set with bf16).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from loralens.core.parallel.sharded import SHARDING, Sharded
from loralens.core.parallel.strategy import Setting
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.size import ZERO, Size

if TYPE_CHECKING:
    from loralens.core.tape.graph import Ends, Weight
    from loralens.core.tape.ledger import Ledger, Storage
    from loralens.core.tape.tape import Tape


class Megatron(Sharded):
    """Weights and gradients on every GPU, states divided among the GPUs of one group."""

    prepares_k_bit = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.states = setting.recipe.parallelism.sharding
        self._trained = ZERO  # bytes of the float32 gradients

    def master_dtype(self, dtype: str) -> str | None:
        """The optimizer updates a float32 copy."""
        return None if dtype == "float32" else "float32"

    def replaces(self, optimizer: str) -> bool:
        """FusedAdam is one kernel."""
        return optimizer.startswith("adamw")

    def accumulated(self, gradient: Size, weight: Weight) -> Size:
        """The buffers hold what accumulates."""
        return ZERO

    def book_gradients(self, ledger: Ledger, gradients: Size, layers: Iterable[Sequence[Weight]]) -> None:
        """The buffers, which stand whether or not there are gradients in them."""
        item = 4 if self.setting.adapters else ITEM_BYTES[self.setting.recipe.weights_dtype]
        self._trained = gradients * 4 // item
        ledger.book(self._trained, "gradients", "Megatron's float32 gradient buffers")

    def before_forward(self, t: Tape, root: Ends, placed: Sequence[tuple[Weight, int]]) -> list[Storage]:
        """A gradient that comes is added to its place in the buffers."""
        t.on_gradient = lambda parameter, storage: True
        return super().before_forward(t, root, placed)

    def after_backward(self, t: Tape) -> None:
        """Gradients are reduced to the parts whose updated weights all then gather."""
        super().after_backward(t)
        if self.states > 1:
            t.traffic.sent("reduce_scatter", self._trained, SHARDING, once=True)
            t.traffic.sent("all_gather", self._trained // 2, SHARDING, once=True)
        if self.setting.recipe.parallelism.dp_replicate > 1:
            t.traffic.sent("all_reduce", self._trained, "dp_replicate", once=True)

    def assumptions(self) -> list[str]:
        """What stands on every GPU."""
        return [
            *super().assumptions(),
            "Megatron keeps gradients in float32 buffers on every GPU, and divides float32 weights and moments (distributed optimizer)",
        ]
