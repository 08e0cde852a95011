"""Which adapter a forward pass uses: one selection for all layers of a model, switched by one write.

What is on is not stored in the layers. Every layer reads the selection of its `AdapterTable`, so a switch costs the
same whatever their number. A request that a switch must not disturb runs under `using(selection)` and then sees only
its own, in its own thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor

from loralens.core.errors import InvalidInput

BASE = -1
"""Position that means: no adapter."""

Pair = tuple[Tensor, Tensor, float]
"""A (rank, in_features), B transposed (rank, out_features), and what is left of the scaling to multiply with."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A batch whose rows want different adapters: the position of each.

    Layers keep what they derive from it for as long as they see the same object: make one per batch, for all calls.
    """

    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a forward pass uses; exactly one of four ways, the base model by default.

    Args:
        adapter: what was chosen, for people to read.
        way: how, for people to read.
        index: one position of the table for all rows.
        rows: a position for each row of the batch.
        pairs: factor pairs by layer name.
        weights: merged weights by layer name.
        biases: with `weights`, those of layers whose bias is not the base's.
    """

    adapter: str | None = None
    way: str = "index"
    index: int = BASE
    rows: Rows | None = None
    pairs: Mapping[str, Pair] | None = None
    weights: Mapping[str, Tensor] | None = None
    biases: Mapping[str, Tensor] | None = None


_own: ContextVar[Selection | None] = ContextVar("loralens_selection", default=None)
own_selection = _own.get


@contextmanager
def using(selection: Selection) -> Iterator[None]:
    """Run forward passes of this thread (or task) under `selection`, whatever is switched meanwhile."""
    token = _own.set(selection)
    try:
        yield
    finally:
        _own.reset(token)


class AdapterTable:
    """Which adapters there are and which one is on, for all layers of a model.

    `selection` is what is on, where no request has brought its own; `use` writes it. A position is a place in the
    lists of all layers: the adapter called `names[position]` has it.
    """

    __slots__ = ("_prepared", "names", "position", "selection")

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.position: dict[str | None, int] = {None: BASE}
        self._prepared: dict[str | None, Selection] = {None: Selection()}
        self.selection = self._prepared[None]

    @property
    def index(self) -> int:
        """Position of the adapter that is on; BASE (-1) is the frozen model alone. Writing it switches."""
        return self.selection.index

    @index.setter
    def index(self, position: int) -> None:
        self.selection = self._prepared[None if position == BASE else self.names[position]]

    def add(self, name: str) -> int:
        """Reserve the place of a new adapter, or find that of an old one that is to be replaced."""
        return self.position[name] if name in self.position else self.place(name)

    def place(self, name: str, pinned: Collection[int] = ()) -> int:
        """A free place for an adapter, also for one that replaces another of its name and must not overwrite it.

        Args:
            name: a name that has a place already gives it up.
            pinned: positions that running requests still read.
        """
        taken = {*self.position.values(), *pinned}
        at = next(number for number in range(len(taken) + 1) if number not in taken)
        self.names += [None] * (at + 1 - len(self.names))
        if name in self.position:
            self.names[self.position[name]] = None
        self.names[at] = name
        self.position[name] = at
        self._prepared[name] = Selection(name, index=at)
        return at

    def remove(self, name: str) -> None:
        """Forget a name; its place is free again."""
        at = self.position.pop(name, BASE)
        self._prepared.pop(name, None)
        if at != BASE:
            self.names[at] = None

    def use(self, name: str | None) -> None:
        """Switch the whole model to an adapter (None: to the base). One write, however many layers there are."""
        try:
            self.selection = self._prepared[name]
        except KeyError:
            raise self._unknown(name) from None

    def prepared(self, name: str | None) -> Selection:
        """The selection that `use` writes."""
        return self._prepared[name]

    def prepare(self, name: str, selection: Selection) -> None:
        """Let `use` write this selection for a name that has a place."""
        self._prepared[name] = selection

    def rows(self, names: Sequence[str | None]) -> Rows:
        """Positions for a batch, one per row; BASE for rows without an adapter."""
        for name in names:
            if name not in self.position:
                raise self._unknown(name)
        return Rows(tuple(self.position[name] for name in names))

    def _unknown(self, name: str | None) -> InvalidInput:
        loaded = ", ".join(known for known in self.names if known is not None) or "none"
        return InvalidInput(f"no adapter is called {name!r}", field="adapter", hint=f"loaded: {loaded}")
