"""Trace one rank: the real model, shared out, and one steady step of it on the fake GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import peft  # noqa: F401  # it brings bitsandbytes' operators
import torch
from torch.distributed.tensor import DTensor

from loralens.core.question.recipe import Recipe
from loralens.lab.trace import build, case, optimizers, step
from loralens.lab.trace.quantize import hush_bitsandbytes
from loralens.lab.trace.ranks.shared import Meshes, share_out
from loralens.lab.trace.ranks.spread import equal_rows
from loralens.lab.trace.ranks.world import RankLedger, Sent, world


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


def trace_rank(
    config: Mapping[str, Any], method: str, recipe: Recipe | Mapping[str, Any], rank: int = 0
) -> tuple[case.TraceResult, Sent]:
    """One rank's peaks as `case.trace` has them, and what it sent and received in a step.

    Raises:
        InvalidInput: the config or the recipe is refused.
        UnsupportedArchitecture: transformers has no such family, or none with a loss.
    """
    hush_bitsandbytes()
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_mapping(recipe)
    p, ledger = recipe.parallelism, RankLedger()
    with world(p.gpus, rank, ledger), equal_rows():
        meshes = Meshes.of(p)

        def shared(model: torch.nn.Module) -> torch.nn.Module:
            return share_out(model, p, meshes)

        subject = build.read_config(config)
        _, counts = step.run(subject, method, recipe, ledger=ledger, shared=shared, stepping=RankStep)
    return case.summarize(ledger, counts), ledger.sent
