"""A tape that also counts what the operators do; the plain one, which answers for memory alone, does not pay for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.cost import Asked, Counted
from loralens.core.tape.graph import Leaf, Node, Tensor
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.work import WorkLog

BACKWARDS: Final = ("backward", "critic_backward")


class CountingTape(Tape):
    """Books as a tape does, and logs in `work` every operator, when it runs, runs again and runs backward."""

    counts = True

    def __init__(self, work: WorkLog, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.work = work

    @property
    def _layers(self) -> int:
        """How many layers the one at hand stands for, itself included; of equal steps within it, how many those are."""
        return (1 + self.stands_for.get(self.layer, 0)) * (1 + self.stands_for_steps)

    def new(self, numel: Size, dtype: str, width: int | Size, label: str, section: str | None = None) -> Tensor:
        """Allocate a tensor of `numel` elements."""
        self.work.fresh.append(numel * ITEM_BYTES[dtype])
        return super().new(numel, dtype, width, label, section)

    def _count(self, inputs: Sequence[Tensor | None], costs: Asked | None) -> Counted:
        known = costs() if callable(costs) else costs
        self.work.stage = self.ledger.phase
        phase = "recomputation" if self.ledger.phase in BACKWARDS else "forward"
        self.work.forward(phase, self.section, inputs, known, self._layers)
        return self._layers, None if known is None else known[1]

    def parameter(self, parameter: Leaf) -> Tensor:
        """A parameter as a tensor."""
        tensor = super().parameter(parameter)
        if tensor.node is not None:
            tensor.node.times = self._layers
        return tensor

    def _apply(self, node: Node, arrived: list[Tensor | None]) -> Any:
        self.work.fresh.clear()
        self.work.stage = self.ledger.phase
        produced = super()._apply(node, arrived)
        self.work.backward(node, arrived)
        return produced

    def _finish(self, node: Node, finish: Callable[[], Any]) -> Any:
        produced = finish()
        self.work.finished(node)
        return produced

    def _arrive(self, buffer: list[Tensor | None], index: int, value: Tensor, target: Node) -> None:
        if (first := buffer[index]) is not None:
            self.work.summed(first, target.times)
        super()._arrive(buffer, index, value, target)
