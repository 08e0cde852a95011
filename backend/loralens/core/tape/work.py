"""What a step does: floating-point operations and bytes moved, operator by operator, beside the bytes that it holds.

Every operator that is recorded on the tape is counted once when it runs, again when it runs for a second time in
backward (checkpointing), and once for its backward function. A matrix product, an attention kernel and the unpacking of a
weight say what they cost; any other operator moves what it reads and what it allocates, one kernel per allocation.

Everything is a polynomial in batch, length and rank, as sizes are, so time is a formula too. Layers that are not walked
are counted with the one that stands for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.cost import NARROW, PRODUCTS, WEIGHT_GRADIENTS, Cost, Costs, moving, rate_of
from loralens.core.tape.size import ZERO, Size

if TYPE_CHECKING:
    from loralens.core.tape.graph import Node, Tensor


@dataclass(slots=True)
class Work:
    """Operations, bytes moved and kernels of one phase and cause."""

    flops: Size = ZERO
    bytes: Size = ZERO
    kernels: int = 0

    def add(self, flops: Size, moved: Size, kernels: int) -> None:
        """So much more."""
        self.flops, self.bytes, self.kernels = self.flops + flops, self.bytes + moved, self.kernels + kernels


@dataclass(slots=True)
class WorkLog:
    """What a walk has counted, by phase, cause and rate. `fresh`: bytes allocated since the last operator ended.

    `stage`: the phase of the step that the walk is in, where that is not the learner's own forward or backward pass.
    """

    done: dict[tuple[str, str, str], Work] = field(default_factory=dict)
    fresh: list[Size] = field(default_factory=list)
    stages: dict[str, dict[str, Work]] = field(default_factory=dict)
    stage: str = "forward"

    def clear(self) -> None:
        """Begin anew."""
        self.done.clear()
        self.stages.clear()
        self.fresh.clear()

    def add(self, phase: str, cost: Cost, times: int, kernels: int = 1) -> None:
        """A kernel ran, in so many layers."""
        flops, moved, ran = cost.flops * times, cost.bytes * times, kernels * times
        self.done.setdefault((phase, cost.cause, cost.rate), Work()).add(flops, moved, ran)
        self.stages.setdefault(self.stage, {}).setdefault(cost.rate, Work()).add(flops, moved, ran)

    def forward(
        self, phase: str, section: str, inputs: Sequence[Tensor | None], costs: Costs | None, times: int
    ) -> None:
        """An operator ran, for the first time or again."""
        fresh, self.fresh = self.fresh, []
        known = costs[0] if costs is not None else None
        if known is not None:
            for cost in known:
                self.add(phase, cost, times)
        elif fresh:
            moved = _sum(fresh)
            for tensor in inputs:
                if tensor is not None:
                    moved = moved + bytes_of(tensor)
            self.add(phase, moving(moved, section), times, len(fresh))

    def backward(self, node: Node, arrived: Iterable[Tensor | None]) -> None:
        """A backward function ran; it reads what arrived for every tensor that it makes, and what was saved once."""
        fresh, self.fresh = self.fresh, []
        if node.costs is not None:
            for cost in node.costs:
                self.add("backward", cost, node.times)
        elif fresh:
            moved = _sum(fresh)
            for storage in node.saved:
                moved = moved + storage.size
            for tensor in arrived:
                if tensor is not None:
                    moved = moved + bytes_of(tensor) * len(fresh)
            self.add("backward", moving(moved, node.section), node.times, len(fresh))

    def finished(self, node: Node) -> None:
        """The engine summed and cast a backward function's results: each is read and written."""
        for size in self.fresh:
            self.add("backward", moving(size * 2, node.section), node.times)
        self.fresh.clear()

    def summed(self, gradient: Tensor, times: int) -> None:
        """A gradient was added to one that was there: two are read, one is written."""
        self.fresh.clear()
        self.add("backward", moving(bytes_of(gradient) * 3), times)

    def every(self) -> Iterator[Work]:
        """Each piece of work that is kept, by cause and by stage."""
        yield from self.done.values()
        for stage in self.stages.values():
            yield from stage.values()

    def rows(self) -> Iterator[tuple[str, str, str, Work]]:
        """Phase, cause, rate and work."""
        return ((*key, work) for key, work in self.done.items())


def bytes_of(tensor: Tensor) -> Size:
    """What reading a tensor moves."""
    return tensor.numel * ITEM_BYTES[tensor.dtype]


def _sum(sizes: Iterable[Size]) -> Size:
    total = ZERO
    for size in sizes:
        total = total + size
    return total


def product(
    out: Tensor,
    a: Tensor,
    b: Tensor,
    flops: Size,
    wants: tuple[bool, bool],
    *,
    narrow: bool = False,
    weight: bool = True,
) -> Costs:
    """A matrix product, and one of as many operations for each gradient that is wanted: of `a`, and of `b`, if it is a `weight`."""
    rate, moved = rate_of(a.dtype), bytes_of(out) + bytes_of(a) + bytes_of(b)
    first = Cost(NARROW if narrow else PRODUCTS, rate, flops, moved)
    second = Cost(NARROW if narrow else WEIGHT_GRADIENTS if weight else PRODUCTS, rate, flops, moved)
    return (first,), [cost for cost, wanted in zip((first, second), wants, strict=True) if wanted]


def looked_up(out: Tensor) -> Costs:
    """Rows of a table: of the table, as much is read as is written."""
    return (moving(bytes_of(out) * 2),), None
