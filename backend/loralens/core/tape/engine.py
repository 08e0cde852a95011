"""A symbolic copy of PyTorch's autograd engine: what runs a graph of nodes backward.

Rules taken from PyTorch (torch/csrc/autograd/engine.cpp, input_buffer.cpp, v2.13):
- nodes run in the order of their creation, newest first, once all their gradients have arrived;
- what a node saved is released right after it ran, its incoming gradient after that;
- a second gradient for the same tensor is added in place when nothing else holds the first and it is no view.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from loralens.core.tape.graph import LEAF, Node, Tensor, dependencies, hold, let_go, passed_by, ran
from loralens.core.tape.halves import FirstHalf
from loralens.core.tape.ledger import Ledger
from loralens.core.tape.size import Size

Slots = Sequence[Tensor | None]
"""Places of autograd that hold gradients."""


class BackwardEngine:
    """Runs the backward pass, booking everything in a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.section = "activations"  # category of what the forward pass allocates now
        self.waiting: dict[Node, list[Tensor | None]] = {}  # gradients of the pass that runs, by where they go
        self.halves: FirstHalf | None = None  # of a backward that is cut in two
        self.inside_hook = False  # of another pass: then a buffer that was filled last goes with its node
        self.loose: tuple[Slots, Slots] = ((), ())  # what a spent buffer and unwanted results hold a little longer

    def new(self, numel: Size, dtype: str, width: int | Size, label: str, section: str | None = None) -> Tensor:
        """Allocate a tensor of `numel` elements."""
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        """Run the graph behind a loss, from a fresh scalar gradient."""
        if loss.node is not None:
            self.backward_from([(loss, self.new(loss.numel, loss.dtype, 1, "gradient of the loss", "temporaries"))])

    def backward_from(self, roots: list[tuple[Tensor, Tensor]]) -> None:
        """Run the graph behind several tensors, each with its gradient; the list is emptied.

        Whoever called holds these gradients to the end.
        """
        given = [(root.node, root.output, gradient) for root, gradient in roots if root.node is not None]
        seed = [gradient for _, gradient in roots]
        roots.clear()
        hold(seed)
        hold([gradient for _, _, gradient in given])
        spent, unwanted = self.run_from(given)
        for held in (seed, unwanted, spent):
            let_go(held)

    def run_from(
        self, given: list[tuple[Node, int, Tensor]], loose: tuple[Slots, Slots] = ((), ())
    ) -> tuple[Slots, Slots]:
        """Run the graph behind several nodes, each with a gradient of one of its results, which a slot holds; the list is emptied.

        `loose`: what a spent buffer and unwanted results hold when it begins; the result is what they hold when it ends.
        """
        waiting = dependencies([node for node, _, _ in given])
        buffers: dict[Node, list[Tensor | None]] = {node: [None] * node.outputs for node, _, _ in given}
        outside, self.waiting = self.waiting, buffers
        ready: list[tuple[int, int, Node]] = []  # newest first; leaves, which are all as new, as they became ready
        turn = count()
        for node, output, gradient in given:
            buffers[node][output] = gradient
            waiting[node] -= 1
            if not waiting[node]:
                heapq.heappush(ready, (-node.sequence, next(turn), node))
        given.clear()
        outer = self.section
        filled: list[Tensor | None] = []  # the input buffer that was filled last stays until another one is filled
        spent: Slots = loose[0]  # ... although its node has run
        unwanted: list[Tensor | None] = [*loose[1]]  # results that no input asked for stay until others are there
        while ready:
            node = heapq.heappop(ready)[2]
            arrived = buffers.pop(node, [])
            self.loose = spent, unwanted
            results = self._run(node, arrived) if arrived else passed_by(node)
            if arrived is filled and not self.inside_hook:
                spent = arrived
            else:
                let_go(arrived)
            if node.sequence == LEAF:
                continue
            let_go(unwanted)
            unwanted = []
            for edge, value in zip(node.inputs, results, strict=False):  # inputs at the end may have no gradient
                if edge is None:
                    unwanted.append(value)
                    continue
                target, index = edge
                if value is not None:
                    let_go(spent)
                    spent, filled = [], buffers.setdefault(target, [None] * target.outputs)
                    self._arrive(filled, index, value, target)
                waiting[target] -= 1
                if not waiting[target]:
                    heapq.heappush(ready, (-target.sequence, next(turn), target))
            node.apply = ran
        self.section, self.waiting, self.loose = outer, outside, ((), ())
        return spent, unwanted

    def _run(self, node: Node, arrived: list[Tensor | None]) -> list[Tensor | None]:
        """One backward function; its results are held.

        What a region's second run has made is done with before the results are cast: unpacking takes it out of the region.
        What was saved in forward stays until they are (engine.cpp: `validate_outputs` comes before `release_variables`).
        """
        self.section = node.section
        self.ledger.where = node.label
        if self.halves is not None:
            self.halves.arrived(node, arrived)
        if node.region is not None and not node.region.done:
            node.region.recompute()
            self.ledger.where = node.label
        produced = self._apply(node, arrived)
        if node.region is not None:
            node.saved, node.region = [], None
        if callable(produced):  # summed and cast to the inputs' shapes and dtypes
            produced = self._finish(node, produced)
        hold(results := list(produced) if isinstance(produced, (tuple, list)) else [produced])
        if self.halves is None:
            node.saved = []
        return results

    def _apply(self, node: Node, arrived: list[Tensor | None]) -> Any:
        return node.apply(arrived) if node.owning else node.apply(*arrived)

    def _finish(self, node: Node, finish: Callable[[], Any]) -> Any:
        return finish()

    def _arrive(self, buffer: list[Tensor | None], index: int, value: Tensor, target: Node) -> None:
        """A gradient's way into an input buffer, where it is added to one that came before."""
        if (first := buffer[index]) is None:
            buffer[index] = value
            return
        if not first.is_view and first.storage is not None and first.storage.slots == 1:
            let_go([value])  # added in place
        else:
            buffer[index] = total = self.new(first.numel, first.dtype, first.width, "sum of gradients", "temporaries")
            hold([total])
            let_go([value, first])
