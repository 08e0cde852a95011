"""A loop over the chunks of a sequence: equal turns, of which a few are walked and the others follow by multiplication.

As with layers (`architecture.stack`), memory changes by the same amount in each turn, so its extremes lie at the ends. The
first two turns and the last three are walked; those between repeat what the second one did on the way forward, and what the
third from the end did on the way back. (The last turn's state is not used, so the one before it is not like the others.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.tape.ledger import Moment
    from loralens.core.tape.tape import Tape

WALKED: Final = 5
_BATCH: Final = BATCH.coefficients.index(1)


def padded_rows(t: Tape, chunk: int) -> Size:
    """Positions of the batch, with those that fill the last chunk of each sample."""
    return TOKENS + BATCH * (chunk - _left(t, chunk))


def _left(t: Tape, chunk: int) -> int:
    """Positions of the last chunk."""
    return chunk if chunk == 1 else t.validity.remainder("sequence_length", chunk) or chunk


def run_turns(t: Tape, chunk: int, state: Tensor, turn: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The state after one turn for every chunk.

    `turn`: from the state before it, and from how many positions are left for it (fewer in the last chunk, perhaps), to the
    state behind it.
    """
    walked, skipped = _turns(t, chunk)
    rows, left = padded_rows(t, chunk), _left(t, chunk)

    def of_all(size: Size) -> Size:
        """What one turn books for each sample, for all turns that are not walked."""
        each = size[_BATCH]
        if size != BATCH * each:
            raise ArithmeticError(f"a turn books {size}, which is not so much for each sample")
        return Size([value * each // chunk for value in rows]) - BATCH * (WALKED * each)

    def run(state: Tensor, number: int) -> Tensor:
        return turn(state, left if number == walked - 1 else chunk)

    return _walk(t, walked, skipped, state, run, of_all)


def run_alike(t: Tape, count: int, state: Tensor, turn: Callable[[Tensor], Tensor]) -> Tensor:
    """The state after so many turns that are all alike, as those of experts with equal shares."""
    skipped = 0 if t.every_layer else max(0, count - WALKED)
    return _walk(t, count - skipped, skipped, state, lambda state, _: turn(state), lambda size: size * skipped)


def _walk(
    t: Tape,
    walked: int,
    skipped: int,
    state: Tensor,
    turn: Callable[[Tensor, int], Tensor],
    of_all: Callable[[Size], Size],
) -> Tensor:
    """`turn`: with its number. `of_all`: from what one books to what all that are not walked book."""
    gap = _UnwalkedTurns(t, skipped, of_all)
    alone = t.stands_for.get(t.layer, 0)
    for number in range(walked):
        before = t.ledger.snapshot()
        if number == 1:
            t.stands_for[t.layer] = (1 + alone) * (1 + skipped) - 1
        state = turn(_boundary(t, state, gap, number), number)
        t.stands_for[t.layer] = alone
        if number == 1:
            gap.entering(before)
    return state


class Collected:
    """What the turns give: all of it is held until the last one has run, then it is joined in one tensor.

    What the others give is made at once, before the first, since the most is held at the end. `rows`: of the whole.
    """

    def __init__(self, t: Tape, chunk: int, width: int, dtype: str, label: str) -> None:
        self._t, self._width, self._dtype, self._label = t, width, dtype, label
        self._given: list[Tensor] = []
        self._latest: Tensor | None = None
        self._others = t.new((TOKENS - BATCH * _left(t, chunk)) * width, dtype, width, label)

    def add(self, given: Tensor) -> None:
        """A turn's, whose gradient will be a part of the whole one's, a view."""
        self._latest = given
        self._given.append(Tensor(None, given.numel, given.dtype, given.width, given.node))

    def joined(self) -> Tensor:
        """Shapes: (rows, width)."""
        t, dtype = self._t, self._dtype
        out = t.new(TOKENS * self._width, dtype, self._width, f"{self._label}, joined")
        sizes = [(each.numel, each.width) for each in self._given]

        def apply(g: Tensor) -> list[Tensor]:
            return [Tensor(g.storage, numel, dtype, width).as_view() for numel, width in sizes]

        t.record(f"{self._label}, joined", [out], self._given, [], apply)
        return out


def _turns(t: Tape, chunk: int) -> tuple[int, int]:
    """How many turns are walked, and how many the second one stands for beside itself.

    The second number matters where kernels are counted, which are no polynomial; the walk then holds for this many turns.
    """
    if not t.every_layer and not t.counts and t.validity.exceeds("sequence_length", WALKED * chunk):
        return WALKED, 1
    turns = 1
    while t.validity.exceeds("sequence_length", turns * chunk):
        turns += 1
    if t.every_layer or turns <= WALKED:
        return turns, 0
    return WALKED, turns - WALKED


class _UnwalkedTurns:
    """The turns that are not walked."""

    def __init__(self, t: Tape, skipped: int, of_all: Callable[[Size], Size]) -> None:
        self._t, self._skipped, self._of_all = t, skipped, of_all
        self._before: Moment | None = None

    def entering(self, before: Moment) -> None:
        """Called in forward behind the second turn."""
        self._repeat(before)

    def leaving(self, number: int) -> None:
        """Called in backward when a turn is done, the last one first."""
        if number == WALKED - 2:
            self._before = self._t.ledger.snapshot()
        elif number == WALKED - 3 and self._before is not None:
            self._repeat(self._before)

    def _repeat(self, before: Moment) -> None:
        if not self._skipped:
            return
        ledger = self._t.ledger
        ledger.settle()
        ledger.apply({entry: self._of_all(size) for entry, size in ledger.difference(before).items()}, 1)
        ledger.settle()


def _boundary(t: Tape, state: Tensor, gap: _UnwalkedTurns, number: int) -> Tensor:
    """A view with a node that tells when backward has passed a turn."""
    inside = state.view()

    def apply(gradient: Tensor) -> Tensor:
        gap.leaving(number)
        return gradient.view()

    t.record("state of the loop", [inside], [state], [], apply)
    return inside
