"""PyTorch's `DistributedDataParallel`: everything on every GPU, gradients beside their communication buckets.

Source: torch 2.13 csrc/distributed/c10d/reducer.cpp (gradients, and flat buckets of the same size);
nn/parallel/distributed.py (`bucket_cap_mb`, `gradient_as_bucket_view`; micro batches before the last under `no_sync`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from loralens.core.parallel.sharded import Sharded
from loralens.core.tape.size import ZERO, Size

if TYPE_CHECKING:
    from loralens.core.tape.graph import Weight
    from loralens.core.tape.ledger import Ledger
    from loralens.core.tape.tape import Tape

BUCKET: Final = 25 * 2**20


class Ddp(Sharded):
    """Buckets stand through the whole step."""

    _gradients = ZERO

    @property
    def _several(self) -> bool:
        return self.setting.gpus > 1

    def book_gradients(self, ledger: Ledger, gradients: Size, layers: Iterable[Sequence[Weight]]) -> None:
        """Buckets as large as the gradients."""
        self._gradients = gradients
        if self._several and any(gradients):
            ledger.book(gradients, "gradients", "DDP's communication buckets")

    def after_backward(self, t: Tape) -> None:
        """Every gradient is averaged once in a step."""
        super().after_backward(t)
        if self._several:
            t.traffic.sent("all_reduce", self._gradients, "dp_replicate", once=True)

    def before_backward(self, t: Tape) -> None:
        """Gradients that are views of the buckets are copied there as they come, unless they wait for the last micro batch."""
        recipe = self.setting.recipe
        if self._several and recipe.parallelism.bucket_view and recipe.gradient_accumulation_steps == 1:
            t.on_gradient = lambda parameter, storage: True

    def buckets(self, gradients: int) -> list[int]:
        """Of 25 MiB each, the last one smaller."""
        return [min(BUCKET, gradients - begun) for begun in range(0, gradients, BUCKET)] if self._several else []

    def assumptions(self) -> list[str]:
        """The buckets are not the gradients themselves."""
        found = super().assumptions()
        if self._several and not self.setting.recipe.parallelism.bucket_view:
            found.append("DDP keeps communication buckets as large as the gradients (gradient_as_bucket_view=False)")
        return found
