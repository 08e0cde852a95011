"""A symbolic autograd tape: PyTorch's engine with sizes in place of numbers.

`engine` runs it backward. A parameter's first gradient is taken over as `.grad`, a later one is added to it
(torch/csrc/autograd/functions/accumulate_grad.h, v2.13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import ref

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.cost import ONCE, Asked, Counted
from loralens.core.tape.engine import BackwardEngine
from loralens.core.tape.graph import (
    LEAF,
    Backward,
    Ends,
    Leaf,
    Node,
    Refilled,
    Tensor,
    Weight,
    edges_to,
    kept_leaf,
)
from loralens.core.tape.handed import HandedBack
from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.pair import OtherCard
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import ZERO, Size
from loralens.core.tape.traffic import Traffic
from loralens.core.tape.validity import Validity

Some = TypeVar("Some", "Tensor", "Tensor | None")


class Hooks:
    """What a walk calls beside the model's own operators, so that it can be changed from outside; these do nothing.

    `weights` are always all of a layer's or a unit's; `number` is the walked layer's.
    """

    moves_checkpoints = False  # do kept inputs of regions leave the device?
    host_bytes = ZERO  # what they came to

    def before_forward(self, t: Tape, root: Ends, placed: Sequence[tuple[Weight, int]]) -> list[Storage]:
        """A micro batch begins: what stays with it. `root`: weights outside of stacks; `placed`: all, with their places."""
        return []

    def after_forward(self, t: Tape) -> None:
        """The model has returned the loss."""

    def set_aside(self, t: Tape) -> None:
        """Another model learns meanwhile: what stays gathered between passes goes."""

    def bring_back(self, t: Tape) -> None:
        """It is needed again."""

    def before_backward(self, t: Tape) -> None:
        """Backward begins."""

    def before_layer(self, t: Tape, weights: Sequence[Weight], *, ahead: bool) -> Storage | None:
        """A layer's forward begins; the result lives until it has run. `ahead`: another one follows."""
        return None

    def behind_layer(self, t: Tape, weights: Sequence[Weight], hidden: Tensor, *, ahead: bool) -> Tensor:
        """A layer has run forward: its result, perhaps with a node behind it that runs before the layer's backward."""
        return hidden

    def part(self, t: Tape, run: Callable[..., Tensor], given: Sequence[Tensor], weights: Sequence[Weight]) -> Tensor:
        """Run a part of a layer that may be a unit of its own. `given`: what it is called with."""
        return run(*given)

    def behind_head(self, t: Tape, logits: Tensor) -> Tensor:
        """The head has run: its result, perhaps with a node behind it that runs before the head's backward."""
        return logits

    def after_recomputed(self, t: Tape, weights: Sequence[Weight], held: list[Storage]) -> None:
        """A reentrant region has run backward; `held`: its input and the gradient of that."""

    def after_layer(self, t: Tape, weights: Sequence[Weight], number: int) -> None:
        """Backward has passed a layer."""

    def alone(
        self,
        t: Tape,
        run: Callable[[Tensor], Tensor],
        hidden: Tensor,
        weights: Sequence[Weight],
        before: Sequence[Weight],
    ) -> Tensor:
        """Run a unit that is outside of the stacks; `before`: of the unit that runs backward after it, if it counts."""
        return run(hidden)

    def park(self, t: Tape, kept: Tensor) -> None:
        """A region keeps its input."""

    def after_backward(self, t: Tape) -> None:
        """Backward has run."""

    def done(self, t: Tape) -> None:
        """Backward has returned to the training loop."""


class Tape(BackwardEngine):
    """Builds tensors and nodes, and runs the backward pass, booking everything in a ledger."""

    counts = False  # what the operators do (`counting`)

    def __init__(
        self,
        ledger: Ledger,
        *,
        autocast: str | None = None,
        kernels: Kernels | None = None,
        validity: Validity | None = None,
        hooks: Hooks | None = None,
        every_layer: bool = False,
        units: int = 3,
    ) -> None:
        super().__init__(ledger)
        self.autocast = autocast
        self.kernels = kernels or Kernels()
        self.handed = HandedBack()
        self.grad_enabled = True
        self.adapters = True  # switched on; off, the base alone runs, and originals instead of trainable copies
        self.region: Refilled | None = None  # the checkpointed region of the forward pass, whose nodes keep nothing
        self.refilling: Refilled | None = None  # the region that runs again
        self.layer = 0  # which simulated layer a parameter belongs to; 0: none
        self.layers_walked = 0
        self.strided = 0  # width of inputs whose channels lie first in memory: a matrix that trains copies them
        self.every_layer = every_layer  # none is skipped and multiplied
        self.units = units  # of a run of layers, that are walked (`architecture.stack`)
        self.cast_cache: dict[Any, Tensor] = {}  # autocast's cache of 16-bit weights, emptied when autocast ends
        self.gradients: dict[Any, Storage] = {}
        self.leaves: dict[Any, Node] = {}
        self.stands_for: dict[int, int] = {}  # simulated layer -> how many more layers it stands for
        self.stands_for_steps = 0  # ... and within one, more steps of a kind (`iterated`)
        self.traffic = Traffic(ledger, self.stands_for)
        self._validity = validity
        self.other_card: OtherCard | None = None  # that the same walk answers for
        self.hooks = hooks or Hooks()
        self.attributes: list[tuple[ref[Node], int]] = []  # functions that hold something as one, and their layers
        self.on_gradient: Callable[[Leaf, Storage], bool] | None = None
        self.locals: list[Tensor | None] = []  # of the modules that run, innermost last
        self._sequence = 0

    @property
    def validity(self) -> Validity:
        """Where what is walked holds; raises `RuntimeError` in a walk without a recipe's numbers."""
        if self._validity is None:
            raise RuntimeError("this walk has no numbers of its own")
        return self._validity

    @validity.setter
    def validity(self, validity: Validity) -> None:
        self._validity = validity

    # -- building -----------------------------------------------------------------------------------------------

    def new(self, numel: Size, dtype: str, width: int | Size, label: str, section: str | None = None) -> Tensor:
        """Allocate a tensor of `numel` elements."""
        storage = Storage(self.ledger, numel * ITEM_BYTES[dtype], section or self.section, label)
        return Tensor(storage, numel, dtype, width)

    def result(
        self, numel: Size, dtype: str, width: int | Size, label: str, *, alternates: bool = False
    ) -> tuple[Tensor, bool]:
        """A result that selective checkpointing may save, and whether it is made now: a second run takes what was saved.

        `alternates`: of such results every second one is not saved.
        """
        region = self.region or self.refilling
        if region is None or region.chosen is None or not region.chosen.takes(alternates=alternates):
            return self.new(numel, dtype, width, label), True
        if self.region is None:
            return Tensor(region.chosen.give(), numel, dtype, width), False
        made = self.new(numel, dtype, width, label)
        if made.storage is not None:
            region.chosen.save(made.storage)
        return made, True

    @contextmanager
    def temporary(
        self, numel: Size, dtype: str, width: int | Size, label: str, section: str | None = None
    ) -> Iterator[Tensor]:
        """A tensor that ends with the block (a scope's object of C++ code, a kernel's workspace)."""
        tensor = self.new(numel, dtype, width, label, section)
        try:
            yield tensor
        finally:
            tensor.end()

    def end(self, *held: Tensor | Storage | None) -> None:
        """These end here, in this order: what the graph or another tensor does not hold is released."""
        for each in held:
            if isinstance(each, Storage):
                each.release()
            elif each is not None:
                each.end()

    def end_in_layers(self, held: list[tuple[Tensor, int]]) -> None:
        """Tensors that end, each with its layer, in the layers that were not walked too: what nothing else holds is released."""
        while held:
            tensor, layer = held.pop(0)
            before = self.ledger.snapshot()
            tensor.end()
            self.ledger.apply(self.ledger.difference(before), self.stands_for.get(layer, 0))

    def local(self, tensor: Some) -> Some:
        """A local variable of the module that runs: held until its forward returns, whatever becomes of the name."""
        self.locals.append(tensor)
        return tensor

    def leave(self, mark: int) -> None:
        """A frame of the forward pass is left, that was entered when there were `mark` local variables."""
        while len(self.locals) > mark:
            self.locals.pop(mark)

    def replace(self, old: Tensor, new: Tensor) -> Tensor:
        """`old` ends, now that `new` stands in its place."""
        old.end()
        return new

    def record(
        self,
        label: str,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor | None],
        saved: Sequence[Tensor | None],
        apply: Backward,
        costs: Asked | None = None,
    ) -> None:
        """Put a node behind `outputs` if gradients flow to any input. `costs`: what running it takes (`counting`)."""
        counted = self._count(inputs, costs)
        if not self.grad_enabled or (edges := edges_to(inputs)) is None:
            return
        self._sequence += 1
        kept = [tensor for tensor in saved if tensor is not None]
        held = [] if self.region else [tensor.storage for tensor in kept if tensor.storage is not None]
        node = Node(self._sequence, label, self.section, edges, held, apply, len(outputs), counted)
        for index, output in enumerate(outputs):
            output.node, output.output = node, index
        if kept and self.region is not None:
            node.region = self.region
            self.region.forget(node)
            if self.region.chosen is not None:
                self.region.chosen.read_by(outputs[0].storage, [x.storage for x in kept if x.storage is not None])
        elif kept and self.refilling is not None:
            self.refilling.refill(held)

    def _count(self, inputs: Sequence[Tensor | None], costs: Asked | None) -> Counted:
        return ONCE  # a plain tape counts nothing

    def saving(self, inputs: Sequence[Tensor | None], saved: Sequence[Tensor | None]) -> None:
        """An operator saves its inputs before it runs: a region's second run may end here, without the result."""
        if self.refilling is None or not self.grad_enabled or edges_to(inputs) is None:
            return
        if kept := [tensor for tensor in saved if tensor is not None]:
            self.refilling.end_with([tensor.storage for tensor in kept if tensor.storage is not None])

    def parameter(self, parameter: Leaf) -> Tensor:
        """A parameter as a tensor; its bytes are booked once and for all by the step, not here."""
        tensor = Tensor(None, parameter.numel, parameter.dtype, parameter.shape[-1])
        if parameter.trainable and self.grad_enabled:
            key = (id(parameter), self.layer)
            node = self.leaves.get(key)
            if node is None:
                accumulate = partial(self._accumulate, key, parameter)
                node = self.leaves[key] = Node(LEAF, parameter.label, self.section, (), [], accumulate)
            tensor.node = node
        return tensor

    def require_grad(self, tensor: Tensor, *, copied: bool = False) -> None:
        """Make an intermediate tensor a leaf whose gradient is kept (PEFT's `enable_input_require_grads`).

        `copied`: it lies otherwise in memory than its gradient, which is then cloned (accumulate_grad.h, `clone_obey_contract`).
        """
        if tensor.node is None and self.grad_enabled:
            size = (tensor.numel, tensor.dtype, tensor.width)
            copy = partial(self.new, *size, "input gradient", "temporaries") if copied else None
            tensor.node = kept_leaf(tensor, self.section, copy, self.handed.returned)

    def keep(self, out: Tensor, x: Tensor) -> None:
        """The function behind `out` holds `x` as an attribute, which stays until the graph goes."""
        if out.node is not None and x.storage is not None:
            out.node.kept = x.storage
            self.attributes.append((ref(out.node), self.layer))

    def _accumulate(self, key: Any, parameter: Leaf, gradient: Tensor | None) -> None:
        if gradient is None or gradient.storage is None:
            return
        if key in self.gradients or parameter.gradient_kept:
            return  # added in place to the .grad that is already there
        storage = gradient.storage
        if storage.slots > 1 and not gradient.is_view:  # held elsewhere: PyTorch clones it; a view is its own
            storage = Storage(self.ledger, storage.size, "temporaries", "")
        if self.on_gradient is not None and self.on_gradient(parameter, storage):
            return
        storage.rename("gradients", "gradients: " + parameter.label)
        storage.hold()
        self.gradients[key] = storage
