"""What strategies share: weights that are brought together layer by layer, and gradients of which each GPU keeps its part.

Sources: torch 2.13 distributed/fsdp (a unit's flat parameter is gathered before its forward and its backward, the next
one's ahead of time; gradients are reduce-scattered when the unit is done; the root unit stays gathered between forward
and backward). Weights that wait on the host come and go in the same way, whatever the strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from loralens.core.parallel.strategy import Setting, Strategy
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import ZERO, Size, share

if TYPE_CHECKING:
    from loralens.core.tape.graph import Ends, Tensor, Weight
    from loralens.core.tape.tape import Tape

LAYERS: Final = "weights of gathered layers"
SHARDING: Final = "dp_shard"  # a dimension of the mesh
ROOT: Final = "weights of the root unit, gathered"
GATHERING: Final = 1  # a stream of its own


def bytes_of(weights: Sequence[Weight]) -> Size:
    """Bytes of weights as they are held."""
    total = ZERO
    for weight in weights:
        total = total + weight.bytes
    return total


class Sharded(Strategy):
    """Gathers a layer's weights where they are divided or on the host, and reduces its gradients when it is done.

    Streams: torch 2.13 distributed/fsdp/_runtime_utils.py, `_init_streams`, gathers on one of its own.
    """

    streams: ClassVar = {LAYERS: GATHERING, ROOT: GATHERING}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._together: dict[int, Storage] = {}  # weights brought together for a layer's backward
        self._root: Storage | None = None
        self._aside = ZERO
        self.backward_over = SHARDING  # the GPUs among which backward gathers

    @property
    def gathers(self) -> bool:
        """Must weights be brought together before they are used?"""
        return self.weights > 1 or self.host.weights

    def gathered(self, t: Tape, weights: Sequence[Weight], *, ahead: bool) -> Storage:
        """The weights that stand together while a layer runs, with those of the next one if it is gathered ahead."""
        return Storage(t.ledger, bytes_of(weights) * (2 if ahead else 1), "temporaries", LAYERS)

    def before_forward(self, t: Tape, root: Ends, placed: Sequence[tuple[Weight, int]]) -> list[Storage]:
        """Embedding, norm and head are gathered, until backward is over."""
        if self.gathers:
            self._root = Storage(t.ledger, bytes_of(root.all), "temporaries", ROOT)
            if self.weights > 1:
                t.traffic.sent("all_gather", bytes_of(root.all), SHARDING)
        return []

    def set_aside(self, t: Tape) -> None:
        """The unit outside of the layers.

        Source: verl 0.7.0 workers/fsdp_workers.py, `compute_log_prob`, `compute_ref_log_prob`: `_handle.reshard(True)`, since FSDP leaves
        the root as it is after a forward pass (torch 2.13 distributed/fsdp/_runtime_utils.py, `_post_forward_reshard`).
        """
        if self._root is not None:
            self._aside = self._root.size
            t.end(self._root)
            self._root = None

    def bring_back(self, t: Tape) -> None:
        """For the model's own learning."""
        if any(self._aside):
            self._root = Storage(t.ledger, self._aside, "temporaries", ROOT)
            self._aside = ZERO

    def before_layer(self, t: Tape, weights: Sequence[Weight], *, ahead: bool) -> Storage | None:
        """For a layer's forward."""
        if self.weights > 1:
            t.traffic.sent("all_gather", bytes_of(weights), SHARDING, t.layer)
        return self.gathered(t, weights, ahead=ahead) if self.gathers else None

    def behind_layer(self, t: Tape, weights: Sequence[Weight], hidden: Tensor, *, ahead: bool) -> Tensor:
        """A node behind the layer brings its weights together before its backward."""
        if not self.gathers:
            return hidden
        outside = hidden.view()
        number = t.layer

        def apply(gradient: Tensor) -> Tensor:
            self._together[number] = self.gathered(t, weights, ahead=ahead)
            if self.weights > 1:
                t.traffic.sent("all_gather", bytes_of(weights), self.backward_over, number)
            return gradient.view()

        t.record("gather", [outside], [hidden], [], apply)
        return outside

    def after_layer(self, t: Tape, weights: Sequence[Weight], number: int) -> None:
        """Its weights go, its gradients are reduced."""
        t.end(self._together.pop(number, None))
        self.reduce(t, number)

    def reduce(self, t: Tape, number: int) -> None:
        """Gradients of a layer are reduced, and this GPU keeps its share (none when the host does)."""
        parts, host = self.gradients, self.host.states
        if parts == 1 and not host:
            return
        for key in [key for key in t.gradients if key[1] == number]:
            storage = t.gradients.pop(key)
            if parts > 1:
                t.traffic.sent("reduce_scatter", storage.size, SHARDING, number)
            if not host:
                t.ledger.book(share(storage.size, parts), "gradients", "gradients, this GPU's share")
            storage.let_go()

    def alone(
        self,
        t: Tape,
        run: Callable[[Tensor], Tensor],
        hidden: Tensor,
        weights: Sequence[Weight],
        before: Sequence[Weight],
    ) -> Tensor:
        """A unit outside of the stacks: its weights come and go, and its gradient is reduced at once.

        Before its backward the weights of the unit that runs backward after it come ahead
        (torch distributed/fsdp/_fully_shard/_fsdp_param_group.py, `_backward_prefetch`: reverse order of what ran forward).
        """
        if not self.gathers:
            return run(hidden)
        size, ahead = bytes_of(weights), bytes_of(before)
        together: list[Storage] = []

        def leave(gradient: Tensor) -> Tensor:
            t.end(*together)
            self.reduce(t, 0)
            return gradient.view()

        def enter(gradient: Tensor) -> Tensor:
            together.append(Storage(t.ledger, size + ahead, "temporaries", LAYERS))
            return gradient.view()

        inside = hidden.view()
        t.record("head unit", [inside], [hidden], [], leave)
        held = Storage(t.ledger, size, "temporaries", LAYERS)
        result = run(inside)
        t.end(held)
        outside = result.view()
        t.record("head unit", [outside], [result], [], enter)
        return outside

    def after_backward(self, t: Tape) -> None:
        """What belongs to no layer is reduced last."""
        for number in {number for _, number in t.gradients}:
            self.reduce(t, number)

    def done(self, t: Tape) -> None:
        """The root unit's weights go."""
        t.end(self._root)
        self._root = None

    def assumptions(self) -> list[str]:
        """What is gathered, and when."""
        if not self.gathers:
            return []
        return [
            "a layer's weights and those of the next are gathered while it runs, the root's stay (assumption: one unit per layer)"
        ]
