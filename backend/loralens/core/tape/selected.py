"""Selective checkpointing: results that a region saves on its first run, so that its second run need not make them.

Saved is what products, attention and collectives make, but for every second product with a weight and without a bias.

Sources: torch 2.13 utils/checkpoint.py (`create_selective_checkpoint_contexts`: a saved result is held by the region until
the second run comes to its operator; those that it never comes to, until the region goes), _functorch/partitioners.py
(compiled, those are not saved); pytorch/torchtitan b5bcd76c distributed/activation_checkpoint.py (`SelectiveAC`: `mm`
alternates; `addmm`, `bmm`, attention, `topk`, reduce-scatter and all-to-all are saved), 9dec370
parallelisms/parallelize_llama.py (`_save_list`). Leaves out: that torchtitan neither counts nor saves a router's `mm`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loralens.core.tape.ledger import Storage


class Selected:
    """What one region has saved, in the order in which it was made."""

    def __init__(self) -> None:
        self._results: deque[Storage] = deque()
        self._products = 0
        self._read = 0  # so many of them backward will read, or what is made of them

    def takes(self, *, alternates: bool) -> bool:
        """Is the next result saved? Of those that alternate the second, the fourth and so on are not."""
        if alternates:
            self._products += 1
        return not alternates or self._products % 2 == 1

    def save(self, result: Storage) -> None:
        """First run: it is held."""
        self._results.append(result)

    def give(self) -> Storage:
        """Second run: what the first one made here."""
        return self._results.popleft()

    def again(self) -> None:
        """The second run begins: it counts anew."""
        self._products = 0

    def read_by(self, own: Storage | None, kept: Sequence[Storage]) -> None:
        """First run: an operator, whose result is `own`, keeps something: all that was made before it is read again."""
        last = self._results[-1] if self._results else None
        unread = last is not None and last is own and all(last is not each for each in kept)
        self._read = len(self._results) - unread

    def drop_unread(self) -> None:
        """The first run is over, and a compiler saw that backward does not read the last results."""
        while len(self._results) > self._read:
            self._results.pop()
