"""Backward cut in two, as zero-bubble schedules do: inputs' gradients at once, weights' later.

After the first half the graph is as it was, and every gradient that arrived at a function with a weight that trains is kept for
the second. Its weights' gradients are booked while the first half runs, as moments of the second are as full.

Source: torch 2.13 distributed/pipelining/_backward.py (`stage_backward_input`: `retain_graph=True`, a hook keeps what arrives
at each parameter group's functions; `stage_backward_weight`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from loralens.core.tape.graph import LEAF

if TYPE_CHECKING:
    from loralens.core.tape.graph import Node, Tensor
    from loralens.core.tape.ledger import Storage

OF_LAYERS: Final = "gradients that wait for the weights' half of backward"
OF_ENDS: Final = "gradients that wait for the weights' half of backward: norm and head"


class FirstHalf:
    """What the first half keeps for the second."""

    def __init__(self) -> None:
        self._held: list[Storage] = []
        self._layers: Mapping[Node, int] = {}

    def begin(self, leaves: Mapping[tuple[int, int], Node]) -> None:
        """Backward begins. `leaves`: the weights' places, by weight and layer (0: in none)."""
        self._layers = {node: layer for (_, layer), node in leaves.items()}

    def arrived(self, node: Node, gradients: Sequence[Tensor | None]) -> None:
        """Gradients are at a function: those of one with a weight, or a weight's copy, and an input are kept."""
        edges = [edge[0] for edge in node.inputs if edge is not None]
        weights = [layer for target in edges if (layer := self._layer(target)) is not None]
        if not weights or len(weights) == len(edges):
            return
        for gradient in gradients:
            storage = None if gradient is None else gradient.storage
            if storage is not None and storage.label not in (OF_LAYERS, OF_ENDS):
                storage.rename("temporaries", OF_LAYERS if weights[0] else OF_ENDS)
                storage.hold()
                self._held.append(storage)

    def end(self) -> None:
        """The second half is over."""
        while self._held:
            self._held.pop().let_go()

    def _layer(self, node: Node) -> int | None:
        """Whose weight's place this is, or its copy's in another dtype; None: an input's."""
        if node.sequence == LEAF:
            return self._layers.get(node)
        behind = {None if edge is None else self._layers.get(edge[0]) for edge in node.inputs}
        return None if None in behind or not behind else behind.pop()
