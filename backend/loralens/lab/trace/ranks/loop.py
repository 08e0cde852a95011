"""The loop of one rank: its optimizers, and the step that counts."""

from __future__ import annotations

from typing import Any

from torch.distributed.tensor import DTensor

from loralens.lab.trace import optimizers, step
from loralens.lab.trace.ranks.world import RankLedger


class _Both:
    """An optimizer for DTensors and one for plain tensors, which no kernel takes together."""

    def __init__(self, optimizers: list[Any]) -> None:
        self._optimizers = optimizers

    def step(self) -> None:
        for optimizer in self._optimizers:
            optimizer.step()

    def zero_grad(self, *, set_to_none: bool) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)


class RankStep(step.TracedStep):
    """A step whose parameters may be DTensors, after one that made every lasting storage."""

    def _optimizer(self) -> Any:
        divided: list[Any] = [parameter for parameter in self.trained if isinstance(parameter, DTensor)]
        whole: list[Any] = [parameter for parameter in self.trained if not isinstance(parameter, DTensor)]
        made = [optimizers.make(self.recipe.optimizer, some) for some in (divided, whole) if some]
        return made[0] if len(made) == 1 else _Both(made)

    def run(self) -> None:
        """The step that counts is the second."""
        self._once()
        self.ledger.marks.clear()
        if isinstance(self.ledger, RankLedger):
            self.ledger.sent.clear()
        self._once()

    def _micro_batch(self, *, last: bool) -> None:
        if self.recipe.parallelism.accumulate_unsynchronized:
            self.model.set_requires_gradient_sync(last)
        super()._micro_batch(last=last)

    def _mark_gradient(self, parameter: Any) -> None:
        gradient = parameter.grad
        index = None if gradient is None else self.ledger.live_index(getattr(gradient, "_local_tensor", gradient))
        if index is not None and not self.ledger.storages[index].kind:
            self.ledger.storages[index].kind = "gradient"
