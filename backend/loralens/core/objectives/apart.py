"""Passes at numbers of their own, walked in a ledger of their own and put on top of what the step holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.tape.ledger import Moment
from loralens.core.tape.size import ZERO, at_rank

if TYPE_CHECKING:
    from loralens.core.objectives.passes import Passes
    from loralens.core.tape.ledger import Ledger


def joined(main: Ledger, scratch: Ledger, rows: int, length: int) -> None:
    """The moments of a pass, on top of what the step holds already."""
    for moment in scratch.moments:
        entries = dict(main.entries)
        for entry, size in moment.entries.items():
            entries[entry] = entries.get(entry, ZERO) + at_rank(size, rows, length)
        total = main.total + at_rank(moment.total, rows, length)
        main.keep(Moment(main.phase, moment.label, total, entries))


def pinned_length(passes: Passes) -> int:
    """What is walked at numbers holds for this length alone."""
    length = passes.recipe.sequence_length
    for bound in (length, length - 1):
        passes.validity.exceeds("sequence_length", bound)
    return length
