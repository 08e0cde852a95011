"""Gradient checkpointing: nodes that forget what they saved, and the second run that brings it back.

Source: torch 2.13 utils/checkpoint.py. The non-reentrant form (transformers' default since 5): the first run builds the
graph as usual, but a hook drops every saved tensor; the first backward node that asks for one runs the region again, which
stops as soon as the last tensor that was dropped has been made anew. The reentrant form (before): the first run has no
graph; backward runs the whole region again and then a backward pass of its own, while its caller holds the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from weakref import ref

from loralens.core.question.versions import version
from loralens.core.tape.cost import NOTHING
from loralens.core.tape.graph import LEAF, Node
from loralens.core.tape.selected import Selected

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor, Weight
    from loralens.core.tape.ledger import Storage
    from loralens.core.tape.tape import Tape


Run = Callable[["Tensor"], "tuple[Tensor, list[Tensor]]"]
"""A region: from its input to its output and to what it makes for the layers after it."""


class _Enough(Exception):
    """The second run has made all that was asked for."""


class Region:
    """One checkpointed region. It lives, and with it the region's inputs, while a node still waits for its tensors."""

    def __init__(
        self,
        t: Tape,
        run: Callable[[], Tensor],
        inputs: Sequence[Tensor | None],
        label: str,
        chosen: Selected | None = None,
    ) -> None:
        self._tape = t
        self._run = run
        self._label = label
        self._held = [tensor.storage for tensor in inputs if tensor is not None and tensor.storage is not None]
        self._waiting: list[ref[Node]] = []  # a node may be gone before backward asks
        self._arguments: object = None
        self._arrived = 0
        self._layer = t.layer
        self.done = False
        self.chosen = chosen

    def forget(self, node: Node) -> None:
        """First run: `node` would have saved something."""
        self._waiting.append(ref(node))

    def refill(self, saved: list[Storage]) -> None:
        """Second run: the next node that saves something gives it to its counterpart of the first run."""
        if self._arrived < len(self._waiting):
            node = self._waiting[self._arrived]()
            if node is not None:
                node.saved = saved
            self._arrived += 1
        if self._arrived == len(self._waiting):
            raise _Enough

    def end_with(self, saved: list[Storage]) -> None:
        """Second run: if one node only still waits, it is this one's counterpart, and the run is over."""
        if self._arrived == len(self._waiting) - 1:
            self.refill(saved)

    def recompute(self) -> None:
        """Run the region again, with a cache of autocast copies of its own."""
        t = self._tape
        self.done = True
        if self.chosen is not None:
            self.chosen.again()
        outside = t.cast_cache, t.layer, t.section, t.region, t.refilling, t.ledger.where
        t.cast_cache, t.layer, t.section, t.region, t.refilling = {}, self._layer, "activations", None, self
        t.ledger.where = f"{self._label}: recomputed"
        mark = len(t.locals)
        with suppress(_Enough):
            self._run()
        t.leave(mark)
        t.cast_cache, t.layer, t.section, t.region, t.refilling, t.ledger.where = outside
        self._waiting.clear()
        self._arguments, self._run = (
            self._run,
            _spent,
        )  # the region's frame holds them as long as a node holds the frame


def _spent() -> Tensor:
    raise RuntimeError("a region ran a third time")


def is_reentrant(recipe: Recipe) -> bool:
    """Does the recipe's checkpointing use the reentrant form?"""
    if recipe.checkpoint_reentrant is not None or recipe.checkpoint_saves == "ops":
        return bool(recipe.checkpoint_reentrant)
    return version(recipe, "transformers") < (5,)


def parked(t: Tape, hidden: Tensor) -> Tensor:
    """A region's input as it is kept: on the device, or in host memory when checkpoints are offloaded."""
    kept = hidden.view()
    kept.node = None
    t.hooks.park(t, kept)
    return kept


def back(t: Tape, kept: Tensor) -> Tensor:
    """The input for the second run, brought back from the host if it was there."""
    if kept.storage is None:
        return t.new(kept.numel, kept.dtype, kept.width, "layer input, back from the host", "activations")
    return kept.view()


def reentrant(
    t: Tape,
    run: Run,
    hidden: Tensor,
    arguments: Sequence[Tensor | None],
    label: str,
    weights: Sequence[Weight] = (),
) -> Tensor:
    """The older form: no graph at first, and a nested backward pass later.

    `arguments` are detached as the input is: what the nested pass finds out about them is handed on. `weights`: the
    region's, for hooks.

    Leaves out, where kernels are counted: the sum of gradients at the input of layers between those that are told apart
    (`architecture.stack`), about a hundredth of the bytes moved; the rates are fitted on that count.
    """
    outside, t.grad_enabled = t.grad_enabled, False
    try:
        out, made = run(hidden)
    finally:
        t.grad_enabled = outside
    kept = parked(t, hidden)
    number = t.layer
    given = [tensor for tensor in arguments if tensor is not None and tensor.node is not None]

    def apply(arrived: list[Tensor]) -> list[Tensor | None]:
        outside = t.cast_cache, t.layer, t.section
        t.cast_cache, t.layer, t.section = {}, number, "activations"
        t.ledger.where = f"{label}: recomputed"
        received = Received()
        inside = back(t, kept)
        inside.node = Node(LEAF, "layer input", "activations", (), [], received.take)
        inside.node.times = 2 if t.stands_for.get(number) else 1
        found = [Received() for _ in given]
        with detached(given, found):
            again, made_again = run(inside)
        t.end(inside)
        t.cast_cache, t.layer, t.section = outside
        t.layer = number
        t.backward_from(
            [
                (tensor, gradient)
                for tensor, gradient in zip([again, *made_again], arrived, strict=True)
                if gradient is not None
            ]
        )
        t.layer = outside[1]
        gradient, others = received.give(), [each.give() for each in found]
        if gradient is not None:
            held = [storage for storage in (kept.storage, gradient.storage) if storage is not None]
            t.hooks.after_recomputed(t, weights, held)
        return [gradient, *others]

    t.record(label, [out, *made], [hidden, *given], [kept, *arguments], apply, NOTHING)
    if out.node is not None:
        out.node.owning = True
    return out


class Received:
    """The `.grad` of a tensor that is a leaf inside a region: held there until the region's caller takes it."""

    def __init__(self) -> None:
        self._gradient: Tensor | None = None

    def take(self, gradient: Tensor) -> None:
        """What backward found."""
        if gradient.storage is not None:
            gradient.storage.hold()
        self._gradient = gradient

    def give(self) -> Tensor | None:
        """Hand it over; None where backward found nothing."""
        if self._gradient is not None and self._gradient.storage is not None:
            self._gradient.storage.hand_over()
        return self._gradient


@contextmanager
def detached(tensors: list[Tensor], found: list[Received]) -> Iterator[None]:
    """Let tensors be leaves for a while; each keeps its gradient."""
    edges = [(tensor.node, tensor.output) for tensor in tensors]
    for tensor, received in zip(tensors, found, strict=True):
        tensor.node, tensor.output = Node(LEAF, "argument", "activations", (), [], received.take), 0
    try:
        yield
    finally:
        for tensor, (node, output) in zip(tensors, edges, strict=True):
            tensor.node, tensor.output = node, output


def recomputed(t: Tape, run: Callable[[Tensor], Tensor], x: Tensor, label: str) -> Tensor:
    """A region that the model's or the loss's own code checkpoints: its input stays where it is, whatever the recipe says."""

    def again() -> Tensor:
        inside = kept.view()
        inside.node, inside.output = edge, output
        return run(inside)

    kept, edge, output = x.view(), x.node, x.output
    kept.node = None
    region = Region(t, again, [kept], label)
    outside, t.region = t.region, region
    try:
        return run(x)
    finally:
        t.region = outside


def checkpoint(
    t: Tape,
    run: Run,
    hidden: Tensor,
    arguments: Sequence[Tensor | None],
    label: str,
    chosen: Selected | None = None,
    *,
    compiled: bool = False,
) -> Tensor:
    """Run a region of the forward pass so that backward keeps only its inputs, and the results that are `chosen`.

    `compiled`: of these, only what backward reads.
    """

    def again() -> Tensor:
        inside = back(t, kept)
        inside.node = edge
        return run(inside)[0]

    kept, edge = parked(t, hidden), hidden.node
    region = Region(t, again, [kept, *arguments], label, chosen)
    outside, t.region = t.region, region
    try:
        out = run(hidden)[0]
        if chosen is not None and compiled:
            chosen.drop_unread()
        return out
    finally:
        t.region = outside
