"""The graph: tensors without values, and the backward functions behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from loralens.core.tape.cost import ONCE, Counted
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import Dim, Size

Backward = Callable[..., Any]
LEAF: Final = 1 << 62


class Leaf(Protocol):
    """What the tape has to know of a weight (`parameter.Parameter` is one)."""

    numel: Size
    dtype: str
    shape: tuple[Dim, ...]
    label: str
    trainable: bool
    gradient_kept: bool


class Weight(Leaf, Protocol):
    """What hooks have to know of a weight besides (`parameter.Parameter` is one)."""

    role: str
    shared_by: int | None

    @property
    def packing(self) -> object | None:
        """How it is packed."""

    @property
    def bytes(self) -> Size:
        """What it occupies."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Weights outside of the stacks: those of embeddings, and the rest. Where they cannot be told apart, all are the rest's."""

    first: Sequence[Weight]
    last: Sequence[Weight]
    apart: bool = True  # the embeddings run before the one stack, the rest after it; False: all run before and after

    @property
    def all(self) -> list[Weight]:
        """Both."""
        return [*self.first, *self.last]


class SavedResults(Protocol):
    """Results that a region saves as they are (`selected.Selected` is one)."""

    def takes(self, *, alternates: bool) -> bool:
        """Is the next result one of them?"""

    def save(self, result: Storage) -> None:
        """First run: keep it."""

    def give(self) -> Storage:
        """Second run: the next one that was kept."""

    def again(self) -> None:
        """The second run begins."""

    def read_by(self, own: Storage | None, kept: Sequence[Storage]) -> None:
        """First run: an operator, whose result is `own`, keeps something for backward."""


class Refilled(Protocol):
    """A part of the forward pass whose nodes keep nothing, and get it back when it runs again (`checkpoint.Region`)."""

    done: bool

    @property
    def chosen(self) -> SavedResults | None:
        """The results that it saves; None: none."""

    def forget(self, node: Node) -> None:
        """First run: `node` would have saved something."""

    def refill(self, saved: list[Storage]) -> None:
        """Second run: what the next node saves goes to its counterpart of the first run."""

    def end_with(self, saved: list[Storage]) -> None:
        """Second run: end here if only this node's counterpart still waits."""

    def recompute(self) -> None:
        """Run again."""


class Node:
    """One backward function: its inputs' nodes, what it saved, and how it makes gradients."""

    __slots__ = (
        "apply",
        "costs",
        "inputs",
        "kept",
        "label",
        "outputs",
        "owning",
        "region",
        "saved",
        "section",
        "sequence",
        "times",
        "__weakref__",
    )

    def __init__(
        self,
        sequence: int,
        label: str,
        section: str,
        inputs: Sequence[tuple[Node, int] | None],
        saved: list[Storage],
        apply: Backward,
        outputs: int = 1,
        counted: Counted = ONCE,
    ) -> None:
        self.sequence = sequence
        self.label = label
        self.section = section
        self.inputs = inputs
        self.saved = saved
        self.apply = apply
        self.outputs = outputs
        self.times, self.costs = counted
        self.kept: Storage | None = None  # held as an attribute: until the graph goes, whatever checkpointing does
        self.owning = False  # takes the list of gradients itself
        self.region: Refilled | None = None  # the checkpointed region that still has to bring back what was saved


class Tensor:
    """A tensor without values: a storage, its number of elements, its dtype and its place in the graph."""

    __slots__ = ("dtype", "is_view", "node", "numel", "output", "storage", "width")

    def __init__(
        self, storage: Storage | None, numel: Size, dtype: str, width: int | Size, node: Node | None = None
    ) -> None:
        self.storage = storage
        self.numel = numel
        self.dtype = dtype
        self.width = width
        self.node = node
        self.output = 0
        self.is_view = False  # of a gradient: a view of what a kernel returned, which autograd cannot add to in place

    @property
    def edge(self) -> tuple[Node, int] | None:
        """Where this tensor's gradient goes."""
        return None if self.node is None else (self.node, self.output)

    def view(self, width: int | Size | None = None) -> Tensor:
        """The same storage and graph node seen with another last dimension (views save and allocate nothing)."""
        result = Tensor(self.storage, self.numel, self.dtype, self.width if width is None else width, self.node)
        result.output = self.output
        result.is_view = self.is_view
        return result

    def as_view(self) -> Tensor:
        """Mark a gradient as a view (transposed or reshaped) of a kernel's result."""
        self.is_view = True
        return self

    def end(self) -> None:
        """This tensor holds neither its graph nor its storage any more; to use it again is an error."""
        self.node = None
        del self.storage, self.numel
        self.__class__ = Ended


class Ended(Tensor):
    """A tensor that has ended; apart, since a class that answers for names it does not have is slow to ask for any."""

    __slots__ = ()

    def end(self) -> None:
        """It has ended already."""
        raise RuntimeError("a tensor that has ended was ended again")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"a tensor that has ended was used again: it has no {name}")


def hold(gradients: Sequence[Tensor | None]) -> None:
    """A slot of autograd takes these."""
    for gradient in gradients:
        if gradient is not None and gradient.storage is not None:
            gradient.storage.hold()


def let_go(gradients: Sequence[Tensor | None]) -> None:
    """A slot of autograd lets these go, the last one first."""
    for gradient in reversed(gradients):
        if gradient is not None and gradient.storage is not None:
            gradient.storage.let_go()


def edges_to(inputs: Sequence[Tensor | None]) -> list[tuple[Node, int] | None] | None:
    """Where the inputs' gradients go; None if they go nowhere."""
    edges: list[tuple[Node, int] | None] = []
    flows = False
    for x in inputs:
        if x is None or x.node is None:
            edges.append(None)
        else:
            edges.append((x.node, x.output))
            flows = True
    return edges if flows else None


def dependencies(roots: list[Node]) -> dict[Node, int]:
    """How many gradients each node behind the roots waits for; a root waits for its own too."""
    counts: dict[Node, int] = {}
    for root in roots:
        counts[root] = counts.get(root, 0) + 1
    seen = set(roots)
    stack = list(seen)
    while stack:
        for edge in stack.pop().inputs:
            if edge is not None:
                target = edge[0]
                counts[target] = counts.get(target, 0) + 1
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
    return counts


def ran(*_: Any) -> Any:
    """In place of a backward function that has run: it runs once."""
    raise RuntimeError("backward ran twice over one node")


def kept_leaf(tensor: Tensor, section: str, copy: Callable[[], Tensor] | None, returned: Callable[..., None]) -> Node:
    """What AccumulateGrad does for a tensor that keeps its gradient: that gradient, or a copy of it; a kept loss keeps both."""
    held = [Tensor(tensor.storage, tensor.numel, tensor.dtype, tensor.width)]

    def apply(gradient: Tensor) -> None:
        kept = gradient if copy is None else copy()
        hold([kept])
        held.append(kept)
        returned(*held)

    return Node(LEAF, "input gradient", section, (), [], apply)


def passed_by(node: Node) -> list[Tensor | None]:
    """No gradient came from anywhere: a backward function then gives none to its inputs, and lets go what it saved."""
    node.saved, node.region = [], None
    return [None] * len(node.inputs)
